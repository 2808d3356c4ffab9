"""mantis-eval: multiple choice and short answers about several photos (Jiang et al. 2024).

Split: out-domain part of LLaVA-Interleave-Bench, as in the paper. Metric: accuracy after the released normalisation.
Prompt: `Image 1: <image> Image 2: <image> {question}`, as the file words it.

    {"sample_id": 0, "image": […], "conversations": […], "metadata": {"dataset": "Mantis"}}
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._interleave import load_dataset, numbered, parse


def load(folder: Path) -> list[Item]:
    """The questions of Mantis."""
    return load_dataset(folder, "Mantis", numbered, str)


TASK = Task(
    name="mantis-eval",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    paper={"7B-240728": 0.631, "7B-241101": 0.673, "1B": 0.396, "2B": 0.544},
)
