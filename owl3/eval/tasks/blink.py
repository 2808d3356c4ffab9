"""blink: perception that people do in a blink, 14 tasks (Fu et al. 2024).

Split: out-domain part of LLaVA-Interleave-Bench, as in the paper. Metric: accuracy after the released normalisation.
Prompt: `the first image: <image> … {question}` and a plea for the letter.

    {"sample_id": 0, "image": […], "conversations": […], "metadata": {"dataset": "BLINK"}}
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._interleave import ask_for_letter, load_dataset, ordinal, parse


def load(folder: Path) -> list[Item]:
    """The questions of BLINK."""
    return load_dataset(folder, "BLINK", ordinal, ask_for_letter)


TASK = Task(
    name="blink",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    paper={"7B-240728": 0.503, "7B-241101": 0.538, "1B": 0.406, "2B": 0.430},
)
