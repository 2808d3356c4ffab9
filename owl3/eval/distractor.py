"""Distractor Resistance: one question, its picture, and N - 1 others in the way (arXiv:2408.04840 §4.5).

The paper's prompt is kept to the letter. What it leaves open is a documented setting here: the place X of the true
picture and the distractors are drawn by a hash of (seed, question, N, pass), so that they depend on no order.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence

from owl3.errors import InputError
from owl3.eval.items import Item, Medium, Record
from owl3.eval.metrics.choice import circular


def numbered_prompt(media: Sequence[Medium], index: int, question: str) -> tuple[str | Medium, ...]:
    """`Image 1: <image> Image 2: <image> … Image N: <image>. In Image X, {question}`; `index` counts from 1."""
    if not 1 <= index <= len(media):
        raise ValueError(f"Image {index} is not among {len(media)} images")
    parts: list[str | Medium] = []
    for number, medium in enumerate(media, start=1):
        parts += [f"{' ' if number > 1 else ''}Image {number}: ", medium]
    return (*parts, f". In Image {index}, {question}")


def _rng(seed: int, *parts: object) -> random.Random:
    """A stream of its own for each question, number and pass: no order of work can change a draw."""
    text = "/".join(map(str, (seed, *parts)))
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))


def distract(items: Sequence[Item], numbers: Sequence[int], *, seed: int = 0, num_sets: int = 1) -> list[Item]:
    """Hide each question's picture among others.

    Args:
        items: Questions about one picture each, `(medium, text)`; the text follows "In Image X, ". Passes of one
            question (rotated options) share `meta["question"]`.
        numbers: How many pictures to show, N; with fewer other pictures than N - 1, that N is left out.
        seed: Of the draws.
        num_sets: Passes per item, each with its own distractors and its own place X.

    Returns:
        Items whose `meta["circle"]` names question and N: all its passes must be right to count.

    Raises:
        InputError: an item shows none or several pictures.
    """
    pictures = _pictures(items)
    found = []
    for number in numbers:
        if number > len(pictures):
            continue
        for item in items:
            for turn in range(num_sets):
                found.append(_hide(item, pictures, number, seed, turn))
    return found


def _pictures(items: Sequence[Item]) -> dict[str, Medium]:
    """Every picture once, by group: another question about the same picture is no distractor."""
    pictures: dict[str, Medium] = {}
    for item in items:
        media = item.media()
        if len(media) != 1 or len(item.prompt) != 2 or media[0].num_frames:
            raise InputError(f"question {item.id}: distractors are drawn for questions about one picture")
        pictures.setdefault(item.group or item.id, media[0])
    return pictures


def _hide(item: Item, pictures: dict[str, Medium], number: int, seed: int, turn: int) -> Item:
    question = str(item.meta.get("question", item.id))
    rng = _rng(seed, item.id, number, turn)
    others = [medium for group, medium in pictures.items() if group != (item.group or item.id)]
    shown = rng.sample(others, number - 1)
    place = rng.randrange(number)
    shown.insert(place, item.media()[0])
    text = next(part for part in item.prompt if isinstance(part, str))
    meta = {"question": question, "circle": f"{question}/{number}"}
    name = f"{item.id}/{number}/{turn}"
    prompt = numbered_prompt(shown, place + 1, text)
    return Item(name, prompt, item.answers, item.options, question, str(number), meta)


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """Circular accuracy over all N, then for each N, with the accuracy of single passes beside it."""
    figures = circular(records, "circle")
    for number in sorted({int(record.category) for record in records}):
        part = circular([record for record in records if record.category == str(number)], "circle")
        if part:
            figures[f"circular_accuracy_{number}"] = part["circular_accuracy"]
            figures[f"accuracy_{number}"] = part["accuracy"]
    return figures


PAPER_CURVE = {
    "mPLUG-Owl3 (7B-240728)": {50: 0.4309, 400: 0.2858},
    "LLaVA-Next-Interleave-7B": {20: 0.4318, 50: 0.1252},
}
"""What the paper states in words; the other points of its Figure 4 are not published as numbers."""
