"""vqav2: open questions about COCO photos (Goyal et al. 2017).

Split: test-dev and test-standard in the paper (server: submission.json is written); val scores itself.
Metric: soft VQA accuracy, official rule, of answers normalised by EvalAI's processor, as the released evaluation
submits them. Prompt: `<image>{question} Answer the question using a single word or phrase.`

    {"image_id": 262144, "question": "Is the ball flying towards the batter?", "question_id": 262144000}
"""

from pathlib import Path
from typing import Any

from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._files import media_path
from owl3.eval.tasks._vqa import load_vqa, parse_normalised, score_by, submission

QUESTIONS = ("v2_OpenEnded_mscoco_*_questions.json", "*questions*.json")
ANNOTATIONS = ("v2_mscoco_*_annotations.json", "*annotations*.json")


def picture_of(folder: Path, row: dict[str, Any]) -> Path:
    """COCO names the split in the file: `COCO_val2014_000000262144.jpg`, and no longer does since 2017."""
    number = f"{int(row['image_id']):012d}.jpg"
    names = [f"COCO_{split}_{number}" for split in ("test2015", "val2014", "train2014")]
    for name in (*names, number):
        path = media_path(folder, name, "test2015", "val2014", "train2014")
        if path.is_file():
            return path
    return folder / names[0]


def load(folder: Path) -> list[Item]:
    """Questions, with annotations where there are any."""
    return load_vqa(folder, QUESTIONS, ANNOTATIONS, picture_of)


TASK = Task(
    name="vqav2",
    version="2-official",
    load=load,
    parse=parse_normalised,
    cut=True,
    score=score_by("official"),
    submission=submission,
    paper={"7B-240728": 0.821, "7B-241101": 0.832, "1B": 0.692, "2B": 0.793},
)
