"""What the VQA tasks share: the challenge's layout of questions and annotations, and answers of ten people.

questions     {"questions": [{"question_id": 34602, "image_id": 1, "question": "what is …?"}, …]}
annotations   {"annotations": [{"question_id": 34602, "answers": [{"answer": "nokia", "answer_id": 1}, …]}, …]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from owl3.errors import InputError
from owl3.eval.items import Item, Medium, Parsed, Record
from owl3.eval.metrics.vqa import Rule, evalai_normalise, vqa_accuracy
from owl3.eval.parsing import parse_short
from owl3.eval.tasks._files import find_files, need, read_json

SHORT_PLEASE = " Answer the question using a single word or phrase."
PictureOf = Callable[[Path, dict[str, Any]], Path]


def load_vqa(
    folder: Path, questions: Sequence[str], annotations: Sequence[str], picture_of: PictureOf, tail: str = SHORT_PLEASE
) -> list[Item]:
    """Read questions and, where there are any, their annotations.

    Args:
        folder: The task's folder.
        questions: Patterns of the question files.
        annotations: Patterns of the annotation files; none found means a test split.
        picture_of: Where a question's picture lies.
        tail: What is asked for after the question.
    """
    answers: dict[str, tuple[str, ...]] = {}
    for path in _present(folder, annotations):
        for row in _rows(path, "annotations"):
            need(row, ("question_id", "answers"), str(path))
            answers[str(row["question_id"])] = tuple(person["answer"] for person in row["answers"])
    items = []
    for path in find_files(folder, *questions):
        for row in _rows(path, "questions"):
            need(row, ("question_id", "question", "image_id"), str(path))
            name = str(row["question_id"])
            if answers and name not in answers:
                raise InputError(f"{path}: question {name} has no annotation beside it")
            prompt = (Medium(picture_of(folder, row)), row["question"] + tail)
            items.append(Item(name, prompt, answers.get(name, ()), group=str(row["image_id"])))
    return items


def _present(folder: Path, patterns: Sequence[str]) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))][:1]


def _rows(path: Path, key: str) -> list[dict[str, Any]]:
    data = read_json(path)
    rows = data.get(key) if isinstance(data, dict) else data
    if not isinstance(rows, list):
        raise InputError(f"{path}: has no list under {key!r}")
    return rows


def parse(item: Item, raw: str) -> Parsed:
    """A word or phrase."""
    return parse_short(raw)


def parse_normalised(item: Item, raw: str) -> Parsed:
    """A word or phrase as EvalAI's processor writes it, which is how the released evaluation submits it.

    Where all annotators agree, the official rule normalises nothing: "Yes" would not be their "yes".
    """
    parsed = parse_short(raw)
    return parsed if parsed.answer is None else Parsed(evalai_normalise(parsed.answer), parsed.how)


def score_by(rule: Rule) -> Callable[[Item, str | None], float | None]:
    """Soft accuracy under a rule; None when the answers are not public."""

    def score(item: Item, answer: str | None) -> float | None:
        return vqa_accuracy(answer or "", item.answers, rule) if item.answers else None

    return score


def submission(records: Sequence[Record]) -> tuple[str, bytes]:
    """What EvalAI's VQA server takes."""
    rows = [{"question_id": int(record.id), "answer": record.answer or ""} for record in records]
    return "submission.json", json.dumps(rows).encode()
