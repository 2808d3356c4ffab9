"""mvbench: 20 tasks of temporal understanding on clips of many data sets (Li et al. 2023).

Split: all, 200 questions per task. 16 frames. Metric: mean over the tasks, and accuracy of each. Prompt: `<video>
Question: {question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    {"video": "sta/sta_video/RPY8D.mp4", "question": "During which part of the video …?", "candidates": […],
     "answer": "Throughout the entire video.", "start": 0.0, "end": 7.2}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import mean_over_categories, option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import LETTER_PLEASE, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json

NUM_FRAMES = 16
PROMPT = "\nQuestion: {question}\nOptions:\n{options}\n" + LETTER_PLEASE


def load(folder: Path) -> list[Item]:
    """`json/TASK.json`, one file per task; `start` and `end` bound the part of the video that is asked about."""
    items = []
    for path in find_files(folder, "json/*.json"):
        for number, row in enumerate(read_json(path)):
            where = f"{path}: question {number}"
            need(row, ("video", "question", "candidates", "answer"), where)
            file = media_path(folder, row["video"], "video", "videos", suffixes=VIDEO_SUFFIXES)
            clip = Medium(file, None, NUM_FRAMES, float(row.get("start") or 0), row.get("end"))
            options = row["candidates"]
            answer = answer_index(row["answer"], options, where)
            text = PROMPT.format(question=row["question"], options=option_lines(options))
            name = f"{path.stem}-{number}"
            items.append(make_item(name, (clip, text), options, answer, group=row["video"], category=path.stem))
    return items


TASK = Task(
    name="mvbench",
    version="2",
    load=load,
    parse=parse,
    letters=True,
    aggregate=mean_over_categories,
    paper={"7B-240728": 0.545, "7B-241101": 0.595, "1B": 0.471, "2B": 0.518},
)
