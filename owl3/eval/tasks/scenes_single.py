"""scenes-single: a question about one generated picture.

Paper: none, this is our own floor under the published benchmarks: exact, free, and answerable only by looking.
Split: held-out scenes of `owl3.demo` (never those of training). Metric: exact match. Prompt: `<image>{question}`.

    {"id": "s0412-colour", "media": ["s0412.jpg"], "question": "What colour is the circle?", "answer": "red", …}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.task import Task
from owl3.eval.tasks._scenes import MAX_NEW_TOKENS, make_item, parse, read_questions


def load(folder: Path) -> Sequence[Item]:
    """Questions of one picture each."""
    return [
        make_item(row, (Medium(folder / row["media"][0]), row["question"]))
        for row in read_questions(folder)
        if len(row["media"]) == 1
    ]


TASK = Task(name="scenes-single", version="1", load=load, parse=parse, max_new_tokens=MAX_NEW_TOKENS)
