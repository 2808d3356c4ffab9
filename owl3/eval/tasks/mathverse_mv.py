"""mathverse-mv: the same geometry problem in several drawings (LLaVA-Interleave-Bench, after Zhang et al. 2024).

Split: out-domain part of LLaVA-Interleave-Bench, as in the paper. Metric: accuracy after the released normalisation.
Prompt: `Image 1: <image> … {question}`, as the file words it.

    {"sample_id": 0, "image": […], "conversations": […], "metadata": {"dataset": "MathVerse"}}
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._interleave import load_dataset, numbered, parse


def load(folder: Path) -> list[Item]:
    """The questions of MathVerse."""
    return load_dataset(folder, "MathVerse", numbered, str)


TASK = Task(
    name="mathverse-mv",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    paper={"7B-240728": 0.650, "7B-241101": 0.651, "1B": 0.239, "2B": 0.425},
)
