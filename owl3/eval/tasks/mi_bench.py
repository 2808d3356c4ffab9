"""mi-bench: thirteen tasks over several pictures (Liu et al. 2024).

Split: test. Metric: circular accuracy over rotations of the options (every pass must be right), by task; the first
letter of the answer counts. Prompt: `{question with <image>} Options: {A. …} Answer with the option’s letter from the
given choices directly.`

    {"id": "gc_0", "task": "general_comparison", "question": "<image><image> …?", "options": […], "answer": "…",
     "image": ["images/…", "images/…"]}
"""

from pathlib import Path

from owl3.errors import InputError
from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import circular_by_category, option_lines, rotations, whole_questions
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, make_item, parse
from owl3.eval.tasks._files import find_files, media_path, need, read_json

TAIL = "\nOptions: {options}\n" + LETTER_PLEASE


def load(folder: Path) -> list[Item]:
    """`multi_image_instruction.json` and `multimodal_knowledge_seeking.json`, one item per rotation."""
    items: list[Item] = []
    for path in find_files(folder, "multi*.json"):
        for row in read_json(path):
            where = f"{path}: question {row.get('id')}"
            need(row, ("id", "question", "options", "answer", "image"), where)
            pieces = row["question"].split("<image>")
            if len(pieces) - 1 != len(row["image"]):
                raise InputError(f"{where}: names {len(pieces) - 1} pictures, has {len(row['image'])}")
            prompt: list[str | Medium] = [pieces[0]] if pieces[0] else []
            for name, text in zip(row["image"], pieces[1:], strict=True):
                prompt += [Medium(media_path(folder, name)), text]
            answer = answer_index(row["answer"], row["options"], where)
            for shift, (shown, place) in enumerate(rotations(row["options"], answer)):
                parts = (*prompt, TAIL.format(options=option_lines(shown)))
                question, task = str(row["id"]), row.get("task", path.stem)
                name = f"{question}-{shift}"
                items.append(make_item(name, parts, shown, place, group=question, category=task, question=question))
    return items


TASK = Task(
    name="mi-bench",
    version="3-circular",
    load=load,
    parse=parse,
    letters=True,
    aggregate=circular_by_category,
    units=whole_questions,
)
