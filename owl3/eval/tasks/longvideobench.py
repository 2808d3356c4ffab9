"""longvideobench: multiple choice that refers to a moment of a long video (Wu et al. 2024).

Split: val, 1337 questions. 64 frames. Metric: accuracy, also by length. Prompt: `Question: <video> {question} Options:
{A. …} Answer with the option’s letter from the given choices directly.`, without subtitles.

    {"id": "86CxyhFV9MI_0", "video_path": "86CxyhFV9MI.mp4", "question": "In the video, which subtitles …?",
     "candidates": […], "correct_choice": 1, "duration_group": 600, "duration": 190.16}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import accuracy_by_category, option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json

NUM_FRAMES = 64
TAIL = "\n{question}\nOptions: {options}\n" + LETTER_PLEASE


def load(folder: Path) -> list[Item]:
    """`lvb_val.json`."""
    path = find_files(folder, "lvb_val*.json")[0]
    items = []
    for row in read_json(path):
        where = f"{path}: question {row.get('id')}"
        need(row, ("id", "video_path", "question", "candidates", "correct_choice"), where)
        options = row["candidates"]
        answer = answer_index(int(row["correct_choice"]), options, where)
        file = media_path(folder, row["video_path"], "videos", suffixes=VIDEO_SUFFIXES)
        clip = Medium(file, None, NUM_FRAMES, 0.0, row.get("duration"))
        tail = TAIL.format(question=row["question"].replace("<|video|>", ""), options=option_lines(options))
        category = str(row.get("duration_group", ""))
        prompt = ("Question: ", clip, tail)
        items.append(make_item(row["id"], prompt, options, answer, group=row["video_path"], category=category))
    return items


TASK = Task(
    name="longvideobench",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=accuracy_by_category,
    paper={"7B-240728": 0.521, "7B-241101": 0.597, "1B": 0.428, "2B": 0.504},
)
