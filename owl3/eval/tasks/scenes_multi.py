"""scenes-multi: "In Image X, …" among several generated pictures.

Paper: the Distractor Resistance prompt (arXiv:2408.04840 §4.5) on scenes. Split: held-out scenes of `owl3.demo`.
Metric: exact match, also by number of pictures (`accuracy_8` …).
Prompt: `Image 1: <image> Image 2: <image> … Image N: <image>. In Image X, {question}`

    {"id": "m0031", "media": ["s0007.jpg", "s0012.jpg"], "index": 2, "question": "what colour is the circle?", …}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from owl3.eval.distractor import numbered_prompt
from owl3.eval.items import Item, Medium, Record
from owl3.eval.task import Task, mean_score
from owl3.eval.tasks._scenes import MAX_NEW_TOKENS, make_item, parse, read_questions


def load(folder: Path) -> Sequence[Item]:
    """Questions that name one of their pictures."""
    return [
        make_item(row, numbered_prompt([Medium(folder / name) for name in row["media"]], row["index"], row["question"]))
        for row in read_questions(folder)
        if "index" in row
    ]


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy over all, then for each number of pictures."""
    by_count: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_count[int(record.meta["media"])].append(record)
    parts = {f"accuracy_{count}": mean_score(by_count[count]) for count in sorted(by_count)}
    return mean_score(records) | {name: part["accuracy"] for name, part in parts.items() if part}


TASK = Task(
    name="scenes-multi",
    version="1",
    load=load,
    parse=parse,
    aggregate=aggregate,
    max_new_tokens=MAX_NEW_TOKENS,
)
