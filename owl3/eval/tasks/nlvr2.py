"""nlvr2: is this sentence true of a pair of photos? (Suhr et al. 2019)

Split: unbalanced_test_public in the paper; dev and test1 read the same. Metric: accuracy, and consistency over the
pairs of one sentence. Prompt: `Left image: <image> Right image: <image> {sentence} yes or no? Answer the question using
a single word.`

    {"identifier": "dev-850-0-0", "sentence": "The right image shows a curving walkway.", "label": "False"}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium, Parsed
from owl3.eval.metrics.nlvr2 import aggregate
from owl3.eval.parsing import parse_yes_no
from owl3.eval.task import Task
from owl3.eval.tasks._files import find_files, media_path, need, read_json

TAIL = "\n{sentence}\nyes or no? Answer the question using a single word."


def load(folder: Path) -> list[Item]:
    """The jsonl of one split; pictures are `dev-850-0-img0.png` and `…-img1.png`."""
    path = find_files(folder, "unbalanced_test_public.json*", "test1.json*", "dev*.json*")[0]
    items = []
    for row in read_json(path):
        need(row, ("identifier", "sentence", "label"), str(path))
        pair = row["identifier"].rsplit("-", 1)[0]
        left, right = (Medium(media_path(folder, f"{pair}-img{side}.png", "test1", "dev")) for side in (0, 1))
        tail = TAIL.format(sentence=row["sentence"])
        gold = "yes" if str(row["label"]) == "True" else "no"
        prompt = ("Left image: ", left, " Right image: ", right, tail)
        items.append(Item(row["identifier"], prompt, (gold,), ("yes", "no"), pair))
    return items


def parse(item: Item, raw: str) -> Parsed:
    """Yes or no."""
    return parse_yes_no(raw)


TASK = Task(
    name="nlvr2",
    version="2",
    load=load,
    parse=parse,
    aggregate=aggregate,
    paper={"7B-240728": 0.908, "7B-241101": 0.927, "1B": 0.758, "2B": 0.855},
)
