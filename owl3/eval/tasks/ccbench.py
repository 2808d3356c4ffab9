"""ccbench: multiple choice about Chinese culture, in MMBench's layout (Liu et al. 2023).

Split: the public 510 questions. Metric: circular accuracy, also by category. Prompt: as mmbench-en. Not in the paper.

    index 0, question "图中所示建筑名称为？", A "天坛", B "故宫", C "黄鹤楼", D "少林寺", answer "A"
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.metrics.choice import circular_by_category, whole_questions
from owl3.eval.task import Task
from owl3.eval.tasks._choice import parse
from owl3.eval.tasks._mmbench import load_tsv


def load(folder: Path) -> list[Item]:
    """CCBench's tsv."""
    return load_tsv(folder, "CCBench*.tsv", "ccbench*.tsv")


TASK = Task(
    name="ccbench",
    version="3-circular",
    load=load,
    parse=parse,
    cut=True,
    letters=True,
    aggregate=circular_by_category,
    units=whole_questions,
)
