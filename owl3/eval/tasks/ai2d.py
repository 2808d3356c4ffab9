"""ai2d: multiple choice about diagrams of primary-school science (Kembhavi et al. 2016).

Split: test, 3088 questions. Metric: accuracy. Prompt: `<image> Question: {question} Options: {A. …} Answer with the
option’s letter from the given choices directly.`

    {"question": "which of these define dairy item", "options": ["c", "D", "b", "a"], "answer": "1", "image": "2.png"}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, make_item, parse
from owl3.eval.tasks._files import find_files, media_path, need, read_json

PROMPT = "\nQuestion: {question}\nOptions:\n{options}\n" + LETTER_PLEASE


def load(folder: Path) -> list[Item]:
    """`test.jsonl` (the published parquet's rows, with pictures beside it as `image`)."""
    path = find_files(folder, "test.jsonl", "ai2d*.jsonl", "test.json")[0]
    items = []
    for number, row in enumerate(read_json(path)):
        where = f"{path}:{number + 1}"
        need(row, ("question", "options", "answer", "image"), where)
        text = PROMPT.format(question=row["question"], options=option_lines(row["options"]))
        named = str(row["answer"])  # the published files count from 0
        answer = answer_index(int(named) if named.isdecimal() else named, row["options"], where)
        prompt = (Medium(media_path(folder, row["image"])), text)
        items.append(make_item(str(row.get("id", number)), prompt, row["options"], answer, group=row["image"]))
    return items


TASK = Task(
    name="ai2d",
    version="3",
    load=load,
    parse=parse,
    cut=True,
    letters=True,
    paper={"7B-240728": 0.738, "7B-241101": 0.778, "1B": 0.467, "2B": 0.626},
)
