"""distractor-scenes: Distractor Resistance on generated scenes: no downloads, exact answers, N = 1, 2, 4, 8, 16, 32.

Paper: none; the harness is that of distractor-mmbench. Split: the held-out questions of scenes-single that name nothing
of the picture ("What colour is the shape?"), so that only the right picture answers them. Metric: circular accuracy per
N over 3 sets of distractors, each with its own place X. Prompt:
`Image 1: <image> … Image N: <image>. In Image X, {question}`

    {"id": "s0412-colour", "media": ["s0412.jpg"], "question": "What colour is the shape?", "answer": "red", …}
"""

from pathlib import Path

from owl3.errors import InputError
from owl3.eval.distractor import aggregate, distract
from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._scenes import MAX_NEW_TOKENS, parse
from owl3.eval.tasks.scenes_single import load as load_single

NUMBERS = (1, 2, 4, 8, 16, 32)
NUM_SETS = 3


def load(folder: Path) -> list[Item]:
    """Every question that several pictures could answer, at every N that the pictures suffice for."""
    return distract(fitting_questions(folder), NUMBERS, num_sets=NUM_SETS)


def fitting_questions(folder: Path) -> list[Item]:
    """Questions about one picture that name nothing on it.

    Raises:
        InputError: no question is asked of two pictures.
    """
    items = load_single(folder)
    groups: dict[str, set[str]] = {}
    for item in items:
        groups.setdefault(str(item.prompt[-1]), set()).add(item.group)
    fitting = [item for item in items if len(groups[str(item.prompt[-1])]) > 1 and "the shape" in str(item.prompt[-1])]
    if not fitting:
        raise InputError(f"{folder}: holds no question that fits several of its pictures")
    return fitting


TASK = Task(
    name="distractor-scenes",
    version="1-seed0",
    load=load,
    parse=parse,
    aggregate=aggregate,
    max_new_tokens=MAX_NEW_TOKENS,
)
