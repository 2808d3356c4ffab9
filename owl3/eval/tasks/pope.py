"""pope: is this object in the photo? Half of the objects asked about are not (Li et al. 2023).

Split: random, popular and adversarial on COCO val2014. Metric: F1 of "yes", mean over the splits; also accuracy,
precision, recall and the share of "yes". Prompt:
`<image>{question} Answer the question using a single word or phrase.`

    {"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?",
     "label": "yes"}
"""

from pathlib import Path

from owl3.errors import InputError
from owl3.eval.items import Item, Medium, Parsed
from owl3.eval.metrics.pope import aggregate, official_answer
from owl3.eval.parsing import parse_yes_no
from owl3.eval.task import Task
from owl3.eval.tasks._files import find_files, media_path, need, read_json
from owl3.eval.tasks._vqa import SHORT_PLEASE


def load(folder: Path) -> list[Item]:
    """The three splits; a question's id is `split-question_id`."""
    items = []
    for path in find_files(folder, "coco_pope_*.json"):
        split = path.stem.removeprefix("coco_pope_")
        for row in read_json(path):
            need(row, ("question_id", "image", "text", "label"), str(path))
            if row["label"] not in ("yes", "no"):
                raise InputError(f"{path}: question {row['question_id']} is labelled {row['label']!r}, not yes or no")
            prompt = (Medium(media_path(folder, row["image"], "val2014")), row["text"] + SHORT_PLEASE)
            name = f"{split}-{row['question_id']}"
            items.append(Item(name, prompt, (row["label"],), ("yes", "no"), row["image"], split))
    return items


def parse(item: Item, raw: str) -> Parsed:
    """Yes or no; where no reader would say, the official rule decides (anything without a "no" is a yes)."""
    parsed = parse_yes_no(raw)
    official = official_answer(raw)
    return parsed if parsed.answer == official else Parsed(official, "lenient")


TASK = Task(
    name="pope",
    version="1-official",
    load=load,
    parse=parse,
    cut=True,
    aggregate=aggregate,
    paper={"7B-240728": 0.882, "7B-241101": 0.881, "1B": 0.853, "2B": 0.874},
)
