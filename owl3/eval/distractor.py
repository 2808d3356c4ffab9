"""Distractor Resistance: one question, its picture, and N - 1 others in the way (arXiv:2408.04840 §4.5).

The paper's prompt is kept to the letter. What it leaves open is a documented setting here: the place X of the true
picture and the distractors are drawn by a hash of (seed, question, N, pass), so that no order of work can change them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

from owl3.errors import InputError
from owl3.eval.items import Item, Medium, Record
from owl3.eval.metrics.choice import circular, whole_questions


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


def distract(
    items: Sequence[Item],
    numbers: Sequence[int],
    *,
    seed: int = 0,
    num_sets: int = 1,
    depths: Sequence[float] = (),
    pool: Mapping[str, Medium] = {},
) -> list[Item]:
    """Hide each question's picture among others.

    Args:
        items: Questions about one picture each, `(medium, text)`; the text follows "In Image X, ". Passes of one
            question (rotated options) share `meta["question"]`.
        numbers: How many pictures to show, N; with fewer other pictures than N - 1, that N is left out.
        pool: More pictures to draw from, by group, beside those that are asked about.
        seed: Of the draws.
        num_sets: Passes per item, each with its own distractors and its own place X.
        depths: Places to try instead of a drawn one, from 0 (first) to 1 (last): one item per depth.

    Returns:
        Items whose `meta["circle"]` names question and N: all its passes must be right to count.

    Raises:
        InputError: an item shows none or several pictures.
    """
    # One picture may be asked about under several numbers: each stands here once, with its place.
    pictures = list(dict.fromkeys({**_pictures(items), **pool}.values()))
    places = {medium: place for place, medium in enumerate(pictures)}
    found = []
    for number in numbers:
        if number > len(pictures):
            continue
        for item in items:
            place = places[item.media()[0]]
            others = pictures[:place] + pictures[place + 1 :]
            for turn in range(num_sets):
                found += [_hide(item, others, number, seed, turn, depth) for depth in depths or (None,)]
    return found


def _pictures(items: Sequence[Item]) -> dict[str, Medium]:
    """The picture of each group of questions."""
    pictures: dict[str, Medium] = {}
    for item in items:
        media = item.media()
        if len(media) != 1 or len(item.prompt) != 2 or media[0].num_frames:
            raise InputError(f"question {item.id}: distractors are drawn for questions about one picture")
        pictures.setdefault(item.group or item.id, media[0])
    return pictures


def _hide(  # noqa: PLR0917 - what a draw depends on
    item: Item, others: Sequence[Medium], number: int, seed: int, turn: int, depth: float | None
) -> Item:
    question = str(item.meta.get("question", item.id))
    rng = _rng(seed, item.id, number, turn)
    shown = rng.sample(others, number - 1)
    drawn = rng.randrange(number)
    place = drawn if depth is None else round(depth * (number - 1))
    shown.insert(place, item.media()[0])
    text = next(part for part in item.prompt if isinstance(part, str))
    at = "" if depth is None else f"@{depth:g}"
    meta = {"question": question, "circle": f"{question}/{number}{at}"}
    name = f"{item.id}/{number}/{turn}{at}"
    prompt = numbered_prompt(shown, place + 1, text)
    return Item(name, prompt, item.answers, item.options, question, f"{number}{at}", meta)


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """Circular accuracy over all, then for each N (and depth, as in `8@0.5`), with that of single passes beside it."""
    figures = circular(records, "circle")
    for cell in sorted({record.category for record in records}, key=_cell):
        part = circular([record for record in records if record.category == cell], "circle")
        if part:
            figures[f"circular_accuracy_{cell}"] = part["circular_accuracy"]
            figures[f"accuracy_{cell}"] = part["accuracy"]
    return figures


def whole_circles(records: Sequence[Record]) -> list[Record]:
    """One record per question and N (and depth): what circular accuracy is the mean of."""
    return whole_questions(records, "circle")


def _cell(category: str) -> tuple[int, float]:
    number, _, depth = category.partition("@")
    return int(number), float(depth or 0)


PAPER_CURVE = {
    "mPLUG-Owl3 (7B-240728)": {50: 0.4309, 400: 0.2858},
    "LLaVA-Next-Interleave-7B": {20: 0.4318, 50: 0.1252},
}
"""What the paper states in words; the other points of its Figure 4 are not published as numbers."""
