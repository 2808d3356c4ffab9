"""needle-scenes: does it matter where the picture stands? A grid of length x depth on generated scenes.

Paper: none. Split and questions: those of distractor-scenes. Metric: accuracy per cell, N = 4, 8, 16, 32 pictures, the
true one at 0, 1/4, 1/2, 3/4 and the end of them (`accuracy_16@0.5`). Prompt:
`Image 1: <image> … Image N: <image>. In Image X, {question}`

    {"id": "s0412-colour", "media": ["s0412.jpg"], "question": "What colour is the shape?", "answer": "red",
     "kind": "one", "alike": true, …}
"""

from pathlib import Path

from owl3.eval.distractor import aggregate, whole_circles
from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._scenes import MAX_NEW_TOKENS, parse
from owl3.eval.tasks.distractor_scenes import hide

LENGTHS = (4, 8, 16, 32)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)


def load(folder: Path) -> list[Item]:
    """Every fitting question in every cell that the pictures suffice for."""
    return hide(folder, LENGTHS, depths=DEPTHS)


TASK = Task(
    name="needle-scenes",
    version="2-seed0",
    load=load,
    parse=parse,
    aggregate=aggregate,
    units=whole_circles,
    max_new_tokens=MAX_NEW_TOKENS,
)
