"""Distractor Resistance: one question, its picture, and N - 1 others in the way (arXiv:2408.04840 §4.5).

The paper's prompt is kept to the letter. What it leaves open is a documented setting here: the place X of the true
picture and the distractors are drawn by a hash of (seed, question, N, pass), so that they depend on no order.
"""

from __future__ import annotations

from collections.abc import Sequence

from owl3.eval.items import Medium


def numbered_prompt(media: Sequence[Medium], index: int, question: str) -> tuple[str | Medium, ...]:
    """`Image 1: <image> Image 2: <image> … Image N: <image>. In Image X, {question}`; `index` counts from 1."""
    if not 1 <= index <= len(media):
        raise ValueError(f"Image {index} is not among {len(media)} images")
    parts: list[str | Medium] = []
    for number, medium in enumerate(media, start=1):
        parts += [f"{' ' if number > 1 else ''}Image {number}: ", medium]
    return (*parts, f". In Image {index}, {question}")
