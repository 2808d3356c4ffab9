"""mmbench-en: multiple choice over 20 abilities, English (Liu et al. 2023).

Split: test 20231003 in the paper (server: submission.tsv is written); dev scores itself. Metric: circular accuracy: a
question counts when it is right under every rotation of its options. Prompt: `<image>Context: {hint or N/A}
Question: {question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    index 241, question "Which of these continents does the equator intersect?", A "North America", …, answer "B"
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.metrics.choice import circular_by_category
from owl3.eval.task import Task
from owl3.eval.tasks._choice import parse
from owl3.eval.tasks._mmbench import load_tsv, submission


def load(folder: Path) -> list[Item]:
    """The English tsv."""
    return load_tsv(folder, "mmbench_test_en_20231003.tsv", "mmbench_dev_en_20231003.tsv", "*EN*.tsv", "*en*.tsv")


TASK = Task(
    name="mmbench-en",
    version="1-circular",
    load=load,
    parse=parse,
    cut=True,
    letters=True,
    aggregate=circular_by_category,
    submission=submission,
    paper={"7B-240728": 0.776, "7B-241101": 0.804, "1B": 0.514, "2B": 0.657},
)
