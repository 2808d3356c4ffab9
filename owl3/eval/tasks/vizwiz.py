"""vizwiz: questions that blind people asked about photos they took (Gurari et al. 2018).

Split: test, 8000 questions (server: submission.json is written); val scores itself. Metric: soft VQA accuracy, official
rule with every annotator counted. Prompt: `<image>{question} When the provided information is insufficient, respond
with 'Unanswerable'. Answer the question using a single word or phrase.`

    {"image": "VizWiz_val_00000002.jpg", "question": "What is the title of this book?", "answers": [{"answer": …}, …]}
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from owl3.eval.items import Item, Medium, Parsed, Record
from owl3.eval.parsing import parse_short
from owl3.eval.task import Task
from owl3.eval.tasks._files import find_files, media_path, need, read_json
from owl3.eval.tasks._vqa import SHORT_PLEASE, load_vqa, score_by

TAIL = " When the provided information is insufficient, respond with 'Unanswerable'." + SHORT_PLEASE


def picture_of(folder: Path, row: dict[str, Any]) -> Path:
    """`val/VizWiz_val_00000002.jpg`."""
    return media_path(folder, str(row.get("image", row.get("image_id"))), "test", "val")


def load(folder: Path) -> list[Item]:
    """VizWiz's own file (test.json or val.json), or its conversion to the VQA layout."""
    if list(folder.glob("*questions*.json")):
        return load_vqa(folder, ("*questions*.json",), ("*annotations*.json",), picture_of, TAIL)
    items = []
    for path in find_files(folder, "test.json", "val.json"):
        for row in read_json(path):
            need(row, ("image", "question"), str(path))
            answers = tuple(person["answer"] for person in row.get("answers", ()))
            prompt = (Medium(picture_of(folder, row)), row["question"].strip() + TAIL)
            items.append(Item(row["image"], prompt, answers, group=row["image"]))
    return items


def parse(item: Item, raw: str) -> Parsed:
    """A word or phrase up to the first full stop or comma, as the released evaluation submits it, and lower-cased.

    Where all annotators agree, the official rule compares letters as they stand.
    """
    parsed = parse_short(raw.split(".", maxsplit=1)[0].split(",", maxsplit=1)[0])
    return Parsed(parsed.answer.lower() if parsed.answer else None, parsed.how)


def submission(records: Sequence[Record]) -> tuple[str, bytes]:
    """What VizWiz's server takes."""
    rows = [{"image": record.id, "answer": record.answer or ""} for record in records]
    return "submission.json", json.dumps(rows).encode()


TASK = Task(
    name="vizwiz",
    version="1-official",
    load=load,
    parse=parse,
    cut=True,
    score=score_by("official"),
    submission=submission,
    paper={"7B-240728": 0.635, "7B-241101": 0.629, "1B": 0.348, "2B": 0.566},
)
