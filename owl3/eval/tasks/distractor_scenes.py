"""distractor-scenes: Distractor Resistance on generated scenes: no downloads, exact answers, N = 1, 2, 4, 8, 16, 32.

Paper: none; the harness is that of distractor-mmbench. Split: the held-out questions of scenes-single that every
picture of their kind answers ("What colour is the shape?"); distractors are of that kind, so that only "Image X" tells.
Metric: circular accuracy per N over 3 sets of distractors, each with its own place X. Prompt:
`Image 1: <image> … Image N: <image>. In Image X, {question}`

    {"id": "s0412-colour", "media": ["s0412.jpg"], "question": "What colour is the shape?", "answer": "red",
     "kind": "one", "alike": true, …}
"""

from collections.abc import Sequence
from pathlib import Path

from owl3.errors import InputError
from owl3.eval.distractor import aggregate, distract, whole_circles
from owl3.eval.items import Item, Medium
from owl3.eval.task import Task
from owl3.eval.tasks._scenes import MAX_NEW_TOKENS, make_item, parse, read_questions

NUMBERS = (1, 2, 4, 8, 16, 32)
NUM_SETS = 3


def load(folder: Path) -> list[Item]:
    """Every question that the other pictures of its kind answer too, at every N that they suffice for."""
    return hide(folder, NUMBERS, num_sets=NUM_SETS)


def hide(folder: Path, numbers: Sequence[int], *, num_sets: int = 1, depths: Sequence[float] = ()) -> list[Item]:
    """Put each question among pictures of its own kind; arguments as `owl3.eval.distractor.distract`.

    Raises:
        InputError: no question is marked `alike`.
    """
    items: dict[str, list[Item]] = {}
    pictures: dict[str, dict[str, Medium]] = {}
    for row in read_questions(folder):
        if len(row["media"]) != 1 or "kind" not in row:
            continue
        item = make_item(row, (Medium(folder / row["media"][0]), row["question"]))
        pictures.setdefault(row["kind"], {})[item.group] = item.media()[0]
        if row["alike"]:
            items.setdefault(row["kind"], []).append(item)
    if not items:
        raise InputError(f"{folder}: no question there is marked `alike`, with the kind of its picture")
    return [
        hidden
        for kind, asked in items.items()
        for hidden in distract(asked, numbers, num_sets=num_sets, depths=depths, pool=pictures[kind])
    ]


TASK = Task(
    name="distractor-scenes",
    version="2-seed0",
    load=load,
    parse=parse,
    aggregate=aggregate,
    units=whole_circles,
    max_new_tokens=MAX_NEW_TOKENS,
)
