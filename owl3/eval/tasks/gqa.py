"""gqa: compositional questions about Visual Genome photos (Hudson and Manning 2019).

Split: testdev-balanced, 12578 questions. Metric: exact match, also by structural type, and binary and open apart.
Prompt: `<image>{question} Answer the question using a single word or phrase.`

    "201307251": {"imageId": "n161313", "question": "Is it overcast?", "answer": "no", "types": {…}}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium, Parsed
from owl3.eval.metrics.gqa import aggregate, normalise
from owl3.eval.parsing import parse_short
from owl3.eval.task import Task
from owl3.eval.tasks._files import find_files, media_path, need, read_json
from owl3.eval.tasks._vqa import SHORT_PLEASE


def load(folder: Path) -> list[Item]:
    """All questions of testdev-balanced."""
    items = []
    for path in find_files(folder, "testdev_balanced_questions.json", "testdev_balanced*.json")[:1]:
        for name, row in read_json(path).items():
            need(row, ("imageId", "question", "answer", "types"), f"{path}: {name}")
            picture = Medium(media_path(folder, f"{row['imageId']}.jpg"))
            structural = row["types"]["structural"]
            prompt = (picture, row["question"] + SHORT_PLEASE)
            items.append(Item(name, prompt, (row["answer"],), group=row["imageId"], category=structural))
    return items


def parse(item: Item, raw: str) -> Parsed:
    """A word or phrase, lower-cased, without its full stop."""
    parsed = parse_short(raw)
    return Parsed(normalise(parsed.answer) if parsed.answer else None, parsed.how)


TASK = Task(
    name="gqa",
    version="1-exact",
    load=load,
    parse=parse,
    cut=True,
    aggregate=aggregate,
    paper={"7B-240728": 0.650, "7B-241101": 0.647, "1B": 0.557, "2B": 0.610},
)
