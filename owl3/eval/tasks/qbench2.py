"""qbench2: low-level quality of a pair of photos (Zhang et al. 2024).

Split: dev (A1, pairs), 1000 questions. Metric: accuracy, also by what is asked. Prompt: `Image 1: <image> Image 2:
<image> Question: {question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    {"image1": "a.jpg", "image2": "b.jpg", "question": "Which is sharper?", "option0": "First", "option1": "Second",
     "option2": "N/A", "option3": "N/A", "correct_choice": "A", "question_type": 1, "question_concern": 0}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import accuracy_by_category, option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import BLOCK, answer_index, make_item, parse
from owl3.eval.tasks._files import find_files, media_path, need, read_json

KINDS = ("yes_no", "what", "how")


def load(folder: Path) -> list[Item]:
    """The rows as json lines (the published parquet's columns, pictures as file names)."""
    path = find_files(folder, "dev.json*", "q-bench2*.json*", "*.jsonl", "*.json")[0]
    items = []
    for number, row in enumerate(read_json(path)):
        where = f"{path}:{number + 1}"
        need(row, ("image1", "image2", "question", "option0", "option1", "correct_choice"), where)
        options = [row[f"option{i}"] for i in range(4) if row.get(f"option{i}") not in (None, "N/A")]
        answer = answer_index(row["correct_choice"], options, where, by_letter=True)
        first, second = (Medium(media_path(folder, row[key])) for key in ("image1", "image2"))
        text = "\n" + BLOCK.format(question=row["question"], options=option_lines(options))
        prompt = ("Image 1: ", first, "\nImage 2: ", second, text)
        kind = KINDS[int(row.get("question_type") or 0)]
        items.append(make_item(str(row.get("id", number)), prompt, options, answer, group=row["image1"], category=kind))
    return items


TASK = Task(
    name="qbench2",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=accuracy_by_category,
    paper={"7B-240728": 0.740, "7B-241101": 0.777, "1B": 0.506, "2B": 0.658},
)
