"""mlvu: multiple choice about long videos, seven tasks (Zhou et al. 2024).

Split: dev (M-avg: mean over the seven multiple-choice tasks). 128 frames, our choice: the released evaluation has no
MLVU. Metric: mean over tasks. Prompt: as videomme.

    {"video": "surveil_8.mp4", "duration": 480, "question": "Which …?", "candidates": […], "answer": "…",
     "question_type": "anomaly_reco"}
"""

from pathlib import Path

from owl3.eval.items import Item, Medium
from owl3.eval.metrics.choice import mean_over_categories, option_lines
from owl3.eval.task import Task
from owl3.eval.tasks._choice import BLOCK, answer_index, make_item, parse
from owl3.eval.tasks._files import VIDEO_SUFFIXES, find_files, media_path, need, read_json

NUM_FRAMES = 128


def load(folder: Path) -> list[Item]:
    """`json/N_task.json`, one file per task; open-ended tasks have no candidates and are not asked."""
    items = []
    for path in find_files(folder, "json/*.json", "MLVU/json/*.json"):
        for number, row in enumerate(read_json(path)):
            where = f"{path}: question {number}"
            need(row, ("video", "question", "answer"), where)
            if "candidates" not in row:
                continue
            options, kind = row["candidates"], row.get("question_type", path.stem)
            answer = answer_index(row["answer"], options, where)
            places = (f"video/{path.stem}", "video", f"../video/{path.stem}")
            file = media_path(path.parent.parent, row["video"], *places, suffixes=VIDEO_SUFFIXES)
            text = "\n" + BLOCK.format(question=row["question"], options=option_lines(options))
            prompt = (Medium(file, num_frames=NUM_FRAMES), text)
            name = f"{path.stem}-{number}"
            items.append(make_item(name, prompt, options, answer, group=row["video"], category=kind))
    return items


TASK = Task(
    name="mlvu",
    version="3",
    load=load,
    parse=parse,
    letters=True,
    aggregate=mean_over_categories,
    paper={"7B-240728": 0.637, "7B-241101": 0.700, "1B": 0.527, "2B": 0.598},
)
