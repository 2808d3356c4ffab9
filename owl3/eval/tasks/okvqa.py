"""okvqa: questions about COCO photos that need outside knowledge (Marino et al. 2019).

Split: val, 5046 questions. Metric: soft VQA accuracy, official rule (annotations repeat five people's answers to ten),
of answers normalised by EvalAI's processor; the released scorer normalises them too.
Prompt: `<image>{question} Answer the question using a single word or phrase.`

    {"image_id": 297147, "question": "What sport can you use this for?", "question_id": 2971475}
"""

from pathlib import Path

from owl3.eval.items import Item
from owl3.eval.task import Task
from owl3.eval.tasks._vqa import load_vqa, parse_normalised, score_by
from owl3.eval.tasks.vqav2 import picture_of

QUESTIONS = ("OpenEnded_mscoco_val2014_questions.json", "*questions*.json")
ANNOTATIONS = ("mscoco_val2014_annotations.json", "*annotations*.json")


def load(folder: Path) -> list[Item]:
    """The 5046 questions of val."""
    return load_vqa(folder, QUESTIONS, ANNOTATIONS, picture_of)


TASK = Task(
    name="okvqa",
    version="2-official",
    load=load,
    parse=parse_normalised,
    cut=True,
    score=score_by("official"),
    paper={"7B-240728": 0.601, "7B-241101": 0.614, "1B": 0.403, "2B": 0.532},
)
