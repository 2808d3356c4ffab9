"""mmbench-cn: MMBench in Chinese (Liu et al. 2023).

Split: test 20231003 in the paper (server: submission.tsv is written); dev scores itself. Metric: circular accuracy.
Prompt: as mmbench-en, its frame in English.

    index 1, question "能生成这张图片上输出的正确 Python 代码是什么?", A "for x in range(6): …", …, answer "D"
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.metrics.choice import circular_by_category
from owl3.eval.task import Task
from owl3.eval.tasks._choice import parse
from owl3.eval.tasks._mmbench import load_tsv, submission


def load(folder: Path) -> list[Item]:
    """The Chinese tsv."""
    return load_tsv(folder, "mmbench_test_cn_20231003.tsv", "mmbench_dev_cn_20231003.tsv", "*CN*.tsv", "*cn*.tsv")


TASK = Task(
    name="mmbench-cn",
    version="1-circular",
    load=load,
    parse=parse,
    cut=True,
    letters=True,
    aggregate=circular_by_category,
    submission=submission,
    paper={"7B-240728": 0.743, "7B-241101": 0.791, "1B": 0.448, "2B": 0.618},
)
