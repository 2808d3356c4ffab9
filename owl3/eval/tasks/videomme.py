"""videomme: multiple choice about short, medium and long videos, without subtitles (Fu et al. 2024).

Split: test, 900 videos, 2700 questions. 128 frames. Metric: accuracy, also by duration. Prompt: `<video> Question:
{question} Options: {A. …} Answer with the option’s letter from the given choices directly.`

    {"video_id": "001", "duration": "short", "videoID": "fFjv93ACGo8", "question_id": "001-1", "question": "When …?",
     "options": ["A. Fruits.", "B. …"], "answer": "C"}
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import accuracy_by_category, option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import BLOCK, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json

NUM_FRAMES = 128
LETTERED = ("A. ", "B. ", "C. ", "D. ")


def load(folder: Path) -> list[Item]:
    """The published rows as json lines, or re-laid out by video with `conversations`."""
    path = find_files(folder, "test.json*", "videomme*.json*", "*.jsonl", "*.json")[0]
    items = []
    for row in _questions(read_json(path)):
        where = f"{path}: question {row.get('question_id')}"
        need(row, ("videoID", "question", "options", "answer", "duration"), where)
        options = [option.split(". ", 1)[-1] if option[:3] in LETTERED else option for option in row["options"]]
        answer = answer_index(row["answer"], options, where, by_letter=True)
        file = media_path(folder, row["videoID"], "data", "videos", suffixes=VIDEO_SUFFIXES)
        text = "\n" + BLOCK.format(question=row["question"], options=option_lines(options))
        prompt = (Medium(file, num_frames=NUM_FRAMES), text)
        name, group = row["question_id"], row["videoID"]
        items.append(make_item(name, prompt, options, answer, group=group, category=row["duration"]))
    return items


def _questions(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for row in rows:
        if "conversations" not in row:
            yield row
            continue
        for number, asked in enumerate(row["conversations"], start=1):
            yield {
                "videoID": row["video_id"],
                "question_id": f"{row['video_id']}-{number}",
                "question": asked["question"],
                "options": asked["choices"],
                "answer": asked["answer"],
                "duration": row.get("duration_category") or row.get("duration"),
            }


TASK = Task(
    name="videomme",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=accuracy_by_category,
    paper={"7B-240728": 0.535, "7B-241101": 0.593, "1B": 0.418, "2B": 0.484},
)
