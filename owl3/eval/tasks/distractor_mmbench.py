"""distractor-mmbench: the paper's Distractor Resistance: MMBench questions with N - 1 other pictures in the way.

Split: MMBench dev, English (arXiv:2408.04840 §4.5), N = 1, 5, 10, 20, 50, 100, 200, 400. Metric: circular accuracy by
N: a question counts when it is right under every order of its options, each pass with its own distractors. Prompt:
`Image 1: <image> … Image N: <image>. In Image X, {question} Options: {A. …} Answer with the option’s letter …`.
Open in the paper, settled here: X and the distractors are drawn evenly, by a hash of (seed 0, pass, N).

    index 241, question "Which of these continents does the equator intersect?", A "North America", …, answer "B"
"""

from pathlib import Path

from owl3.eval.distractor import PAPER_CURVE, aggregate, distract, whole_circles
from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._choice import parse
from owl3.eval.tasks._mmbench import load_tsv

NUMBERS = (1, 5, 10, 20, 50, 100, 200, 400)
FORM = "{question}\nOptions: {options}\nAnswer with the option’s letter from the given choices directly."


def load(folder: Path) -> list[Item]:
    """Every pass of every question at every N that the pictures suffice for."""
    passes = load_tsv(folder, "mmbench_dev_en_20231003.tsv", "mmbench_dev*.tsv", "*.tsv", form=FORM)
    return distract(passes, NUMBERS)


TASK = Task(
    name="distractor-mmbench",
    version="3-circular-seed0",
    load=load,
    parse=parse,
    letters=True,
    aggregate=aggregate,
    units=whole_circles,
    paper={f"{model} at N = {n}": value for model, curve in PAPER_CURVE.items() for n, value in curve.items()},
)
