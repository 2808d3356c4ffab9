"""textvqa: questions whose answer is written in the picture (Singh et al. 2019).

Split: val, 5000 questions. Metric: soft accuracy as TextVQA's own evaluator (m4c, EvalAI) computes it; the paper's
own scorer gives 2 points less on the same answers. Prompt without OCR tokens:
`<image>{question} Answer the question using a single word or phrase.`

    {"question_id": 34602, "image_id": "003a8ae2ef43b901", "question": "what is the brand of this camera?"}
"""

from pathlib import Path
from typing import Any

from owl3.eval.items import Item, Medium
from owl3.eval.task import Task
from owl3.eval.tasks._files import find_files, media_path, need, read_json
from owl3.eval.tasks._vqa import SHORT_PLEASE, load_vqa, parse, score_by


def picture_of(folder: Path, row: dict[str, Any]) -> Path:
    """`train_images/003a8ae2ef43b901.jpg`: val uses pictures of OpenImages' train set."""
    return media_path(folder, f"{row['image_id']}.jpg", "train_images")


def load(folder: Path) -> list[Item]:
    """TextVQA's own file, or its conversion to the VQA layout."""
    own = sorted(folder.glob("TextVQA_0.5.1_val*.json"))
    if not own or (folder / "val_questions_vqa_format.json").is_file():
        return load_vqa(folder, ("*questions*.json",), ("*annotations*.json",), picture_of)
    items = []
    for path in find_files(folder, own[0].name):
        for row in read_json(path)["data"]:
            need(row, ("question_id", "image_id", "question"), str(path))
            prompt = (Medium(picture_of(folder, row)), row["question"] + SHORT_PLEASE)
            answers = tuple(row.get("answers", ()))
            items.append(Item(str(row["question_id"]), prompt, answers, group=str(row["image_id"])))
    return items


TASK = Task(
    name="textvqa",
    version="1-evalai",
    load=load,
    parse=parse,
    cut=True,
    score=score_by("evalai"),
    paper={"7B-240728": 0.690, "7B-241101": 0.714, "1B": 0.531, "2B": 0.626},
)
