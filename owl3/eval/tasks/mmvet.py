"""mmvet: open questions that need several abilities at once, judged by GPT-4 on a server (Yu et al. 2023).

Split: all 218 questions. Metric: the server's; submission.json is what it takes. A judge of your own
scores the answers afterwards: `owl3 judge RESULT --by package.module:function`. Prompt: `<image> {question}`.

    "v1_0": {"imagename": "v1_0.png", "question": "What is x in the equation?", "answer": "-1<AND>-5", …}
"""

import json
from collections.abc import Sequence
from pathlib import Path

from owl3.eval.items import Item, Medium, Parsed, Record
from owl3.eval.task import Task
from owl3.eval.tasks._files import find_files, media_path, need, read_json


def load(folder: Path) -> list[Item]:
    """`mm-vet.json`; gold answers go to `meta`, as only a judge can compare with them."""
    path = find_files(folder, "mm-vet.json")[0]
    items = []
    for name, row in read_json(path).items():
        need(row, ("imagename", "question"), f"{path}: {name}")
        prompt = (Medium(media_path(folder, row["imagename"])), "\n" + row["question"].strip())
        meta = {"gold": row.get("answer", ""), "capability": row.get("capability", [])}
        items.append(Item(name, prompt, group=row["imagename"], meta=meta))
    return items


def parse(item: Item, raw: str) -> Parsed:
    """Everything that was said."""
    said = raw.strip()
    return Parsed(said or None, "strict" if said else "failed")


def submission(records: Sequence[Record]) -> tuple[str, bytes]:
    """What MM-Vet's evaluator takes: id -> answer."""
    answers = {record.id: record.answer or "" for record in records}
    return "submission.json", json.dumps(answers, ensure_ascii=False).encode()


TASK = Task(
    name="mmvet",
    version="1",
    load=load,
    parse=parse,
    cut=True,
    submission=submission,
    paper={"7B-240728": 0.401, "7B-241101": 0.398, "1B": 0.214, "2B": 0.363},
)
