"""lvbench: multiple choice about videos of an hour and more (Wang et al. 2024).

Split: all 1549 questions. 128 frames, our choice: the released evaluation has no LVBench. Metric: accuracy, also by
kind of question. Prompt: `<video> {question with its options, as published} Answer with the option’s letter …`

    {"key": "Cm73ma6Ibcs", "qa": [{"uid": "0", "question": "What year …?\n(A) 1636\n(B) 1366\n…", "answer": "D",
     "question_type": ["key information retrieval"]}]}
"""

import re
from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import accuracy_by_category
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json

NUM_FRAMES = 128
_OPTION = re.compile(r"^\s*\(([A-H])\)\s*(.*)$", re.MULTILINE)


def load(folder: Path) -> list[Item]:
    """`video_info.meta.jsonl`."""
    path = find_files(folder, "video_info.meta.jsonl", "*.jsonl")[0]
    items = []
    for row in read_json(path):
        need(row, ("key", "qa"), str(path))
        file = media_path(folder, row["key"], "all_videos", "videos", suffixes=VIDEO_SUFFIXES)
        for asked in row["qa"]:
            where = f"{path}: question {asked.get('uid')}"
            need(asked, ("uid", "question", "answer"), where)
            options = [text.strip() for _, text in _OPTION.findall(asked["question"])]
            answer = answer_index(asked["answer"], options, where, by_letter=True)
            prompt = (Medium(file, num_frames=NUM_FRAMES), f"\n{asked['question']}\n{LETTER_PLEASE}")
            kind = (asked.get("question_type") or [""])[0].replace(" ", "_")
            items.append(make_item(str(asked["uid"]), prompt, options, answer, group=row["key"], category=kind))
    return items


TASK = Task(
    name="lvbench",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=accuracy_by_category,
    paper={"7B-241101": 0.435},
)
