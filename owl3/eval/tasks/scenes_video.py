"""scenes-video: a question about one generated clip.

Paper: none. Split: held-out clips of `owl3.demo`. Metric: exact match. Prompt: `<video>{question}`, the video as 8
evenly spaced frames (the paper's number in training, facts §3.3).

    {"id": "v003-motion", "media": ["v003.mp4"], "question": "Which way does the circle move?", "answer": "left", …}
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.task import Task
from owl3.eval.tasks._scenes import MAX_NEW_TOKENS, make_item, parse, read_questions

NUM_FRAMES = 8


def load(folder: Path) -> Sequence[Item]:
    """Questions of one clip each."""
    return [
        make_item(row, (Medium(folder / row["media"][0], num_frames=NUM_FRAMES), row["question"]))
        for row in read_questions(folder)
    ]


TASK = Task(name="scenes-video", version="1", load=load, parse=parse, max_new_tokens=MAX_NEW_TOKENS)
