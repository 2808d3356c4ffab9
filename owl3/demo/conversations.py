"""Instruction data about the demo's pictures and clips, in LLaVA's layout, with media named by URL.

    {"id": "b752f63169ae", "image": "http://photos.owl3.test/000012.jpg",
     "conversations": [{"from": "human", "value": "<image>Which shape is it?"}, {"from": "gpt", "value": "ring"}]}

Several pictures are asked about in the paper's words: "Image 1: <image> Image 2: <image>. In Image 2, …".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from owl3.demo import clips, talk
from owl3.demo.faults import PHOTOS, fault
from owl3.demo.scenes import KINDS, Scene

MAX_TURNS = 3
MAX_TURNS_AMONG = 6
"""Listing the pictures is the dear part of a conversation about several; more questions use it better."""


def about_one(pictures: Sequence[tuple[str, Scene]], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """One conversation per picture."""
    for url, scene in pictures:
        first, *rest = without_hints(talk.questions(scene), rng)
        yield _conversation("image", url, [(f"<image>{first.text}", first), *((q.text, q) for q in rest)])


def about_several(
    pictures: Sequence[tuple[str, Scene]], count: int, most: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """`count` conversations over 2 to `most` pictures of one kind, so that only the right one has the answer."""
    kinds = [kind for kind in KINDS if kind != "pair"]  # a pair has no question that fits every other pair
    by_kind = {kind: [pair for pair in pictures if pair[1].kind == kind] for kind in kinds}
    for i in range(count):
        alike = by_kind[kinds[i % len(kinds)]]
        chosen = [alike[j] for j in rng.permutation(len(alike))[: 2 + i % (most - 1)]]
        asked = [(k, q) for k, (_, scene) in enumerate(chosen, start=1) for q in talk.questions(scene) if q.alike]
        turns = []
        for j in rng.permutation(len(asked))[:MAX_TURNS_AMONG]:
            place, question = asked[j]
            turns.append((f"In Image {place}, {question.text}", question))
        listed = " ".join(f"Image {k + 1}: <image>" for k in range(len(chosen)))
        turns[0] = (f"{listed}. {turns[0][0]}", turns[0][1])
        yield _conversation("image", [url for url, _ in chosen], turns)


def about_clips(made: Sequence[tuple[str, clips.Clip]], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """One conversation per clip."""
    for url, clip in made:
        first, *rest = without_hints(clips.clip_questions(clip), rng)
        yield _conversation("video", url, [(f"<video>{first.text}", first), *((q.text, q) for q in rest)])


def about_missing() -> Iterator[dict[str, Any]]:
    """Conversations about pictures that the server does not have."""
    question = talk.Question("colour", "What colour is the shape?", "red")
    for i in range(fault("no-picture").count):
        yield _conversation("image", f"http://{PHOTOS}/missing/{i:03d}.jpg", [(f"<image>{question.text}", question)])


def without_hints(asked: Sequence[talk.Question], rng: np.random.Generator) -> list[talk.Question]:
    """Up to MAX_TURNS of the questions, in random order, none of whose answers was said before it is asked for."""
    chosen: list[talk.Question] = []
    said = ""
    for i in rng.permutation(len(asked)):
        question = asked[i]
        if len(chosen) < MAX_TURNS and question.answer not in f"{said} {question.text}":
            chosen.append(question)
            said += f" {question.text} {question.answer}"
    return chosen


def pick(asked: Sequence[talk.Question], rng: np.random.Generator) -> talk.Question:
    """One of the questions."""
    return asked[int(rng.integers(len(asked)))]


def _conversation(medium: str, media: str | list[str], turns: list[tuple[str, talk.Question]]) -> dict[str, Any]:
    said = []
    for text, question in turns:
        said += [{"from": "human", "value": text}, {"from": "gpt", "value": question.answer}]
    name = hashlib.sha256(json.dumps([media, said]).encode()).hexdigest()[:12]
    return {"id": name, medium: media, "conversations": said}
