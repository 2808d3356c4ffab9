"""sciverse-mv: which of four diagrams belongs to this scientific problem? (LLaVA-Interleave-Bench)

Split: out-domain part of LLaVA-Interleave-Bench, as in the paper. Metric: accuracy after the released normalisation.
Prompt: `Image 1: <image> … {question}`, with a plea to "select the correct paired scientific diagram".

    {"sample_id": 0, "image": ["…"], "conversations": […], "metadata": {"dataset": "SciVerse"}}
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._interleave import load_dataset, numbered, parse

ASKED = "Answer with the option's letter from the given choices directly."
ADDED = "\nPlease select the correct paired scientific diagram from four given images. "


def finish(text: str) -> str:
    """The file's question, with the released evaluation's addition."""
    return text.replace(ASKED, ADDED + ASKED)


def load(folder: Path) -> list[Item]:
    """The questions of SciVerse."""
    return load_dataset(folder, "SciVerse", numbered, finish)


TASK = Task(
    name="sciverse-mv",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    paper={"7B-240728": 0.862, "7B-241101": 0.827, "1B": 0.264, "2B": 0.300},
)
