"""What the tasks of LLaVA-Interleave-Bench share: one json of conversations, told apart by `metadata.dataset`.

    {"sample_id": 27, "image": ["a.png", "b.png"], "conversations": [{"from": "human", "value": "<image><image>…"},
     {"from": "gpt", "value": "(A)"}], "metadata": {"dataset": "Mantis", "question_type": "multi-choice"}}

The released evaluation numbers the pictures ("Image 1: <image> ", BLINK: "the first image: <image> ") and asks for a
letter. Answers are compared after stripping case, punctuation and brackets.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from owl3.errors import InputError
from owl3.eval.items import Item, Medium, Parsed
from owl3.eval.metrics.vqa import strip_punctuation
from owl3.eval.parsing import parse_letter
from owl3.eval.tasks._choice import LETTER_PLEASE
from owl3.eval.tasks._files import find_files, media_path, need, read_json

FILES = ("multi_image_out_domain.json", "*out_domain*.json", "*.json")
ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
_OPTION = re.compile(r"\(([A-H])\)\s*([^()\n]*)|^([A-H])[.:]\s*(.*)$", re.MULTILINE)


def numbered(number: int) -> str:
    """`Image 3: `."""
    return f"Image {number}: "


def ordinal(number: int) -> str:
    """`the third image: `."""
    return f"the {ORDINALS[number - 1]} image: "


def load_dataset(folder: Path, dataset: str, name_of: Callable[[int], str], finish: Callable[[str], str]) -> list[Item]:
    """Read the conversations of one data set.

    Args:
        folder: The task's folder, with `eval_images_fix/` beside the json.
        dataset: `metadata.dataset`.
        name_of: What stands before the n-th picture.
        finish: The question with what is asked for after it.

    Raises:
        InputError: the file holds nothing of this data set, or a question has other pictures than it names.
    """
    path = find_files(folder, *FILES)[0]
    rows = [row for row in read_json(path) if row.get("metadata", {}).get("dataset") == dataset]
    if not rows:
        raise InputError(f"{path}: holds no question of data set {dataset}")
    return [_item(folder, row, f"{path}: question {row.get('sample_id')}", name_of, finish) for row in rows]


def _item(
    folder: Path, row: dict[str, Any], where: str, name_of: Callable[[int], str], finish: Callable[[str], str]
) -> Item:
    need(row, ("sample_id", "image", "conversations"), where)
    said, gold = (turn["value"] for turn in row["conversations"][:2])
    pieces = finish(said).split("<image>")
    if len(pieces) - 1 != len(row["image"]):
        raise InputError(f"{where}: names {len(pieces) - 1} pictures, has {len(row['image'])}")
    prompt: list[str | Medium] = [pieces[0]] if pieces[0] else []
    for number, (name, text) in enumerate(zip(row["image"], pieces[1:], strict=True), start=1):
        prompt += [name_of(number), Medium(media_path(folder, name, "eval_images_fix")), f" {text}"]
    options = tuple((a or b).strip() for _, a, _, b in _OPTION.findall(said))
    return Item(str(row["sample_id"]), tuple(prompt), (normalise(gold),), options, str(row["image"][0]))


def ask_for_letter(text: str) -> str:
    """The question, and what to answer with."""
    return f"{text}\n{LETTER_PLEASE}"


def normalise(text: str) -> str:
    """The released comparison: no punctuation, quotes or brackets, lower case."""
    return strip_punctuation(text.replace("\n", " ").replace("\t", " ").strip()).strip("'\"()").strip().lower()


def parse(item: Item, raw: str) -> Parsed:
    """The released rule first; a letter found with good will second."""
    said = normalise(raw)
    if said and (said == item.answers[0] or len(said) == 1):
        return Parsed(said, "strict")
    letter = parse_letter(raw, item.options or ("", "", "", ""))
    if letter.answer is not None:
        return Parsed(letter.answer.lower(), "lenient")
    return Parsed(said or None, "lenient" if said else "failed")
