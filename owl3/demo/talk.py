"""What can be said about a scene or a clip: captions in several wordings, and questions with exact answers.

Answers are one word from a closed list, and every list is drawn evenly when scenes are made, so a model that does not
look can only guess: about one in eight for colours, one in four for places. `blind_floor` computes that figure for any
set of questions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from owl3.demo.scenes import COLOURS, NUMBERS, PLACES, SHAPES, WORDS, Scene, Thing

OPTIONS: dict[str, tuple[str, ...]] = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "place": tuple(PLACES),
    "count": NUMBERS,
    "word": WORDS,
    "way": ("left", "right", "up", "down"),
}
"""The closed set of answers per topic."""

WHERE = {"left": "on the left", "right": "on the right", "top": "at the top", "bottom": "at the bottom"}


@dataclass(frozen=True)
class Question:
    """A question about one picture or clip.

    Attributes:
        topic: A key of OPTIONS.
        alike: The question fits every scene of its kind, whatever is on it. Only such questions are asked among
            several pictures: they can't be answered without finding the right one.
    """

    topic: str
    text: str
    answer: str
    alike: bool = False


def captions(scene: Scene) -> list[str]:
    """Every wording of a scene's caption.

    Colour, shape and place each come before each other in some wording: a caption trains a model to find what it names
    later by what it names before, and in that direction only.
    """
    first = scene.things[0]
    if scene.kind == "word":
        return [
            f'the word "{scene.word}" in {first.colour} letters',
            f'{first.colour} letters that say "{scene.word}"',
            f'a sign with "{scene.word}" written in {first.colour}',
        ]
    if scene.kind == "count":
        number, name = NUMBERS[len(scene.things) - 1], _many(first, len(scene.things))
        return [
            f"{number} {first.colour} {name}",
            f"a picture of {number} {first.colour} {name}",
            f"{first.colour} {name}, {number} in all",
        ]
    by_colour = [(_a(thing), WHERE[thing.place]) for thing in scene.things]
    by_shape = [(f"a {thing.shape} in {thing.colour}", WHERE[thing.place]) for thing in scene.things]
    return [
        " and ".join(f"{what} {where}" for what, where in by_colour),
        " and ".join(f"{what} {where}" for what, where in by_shape),
        ", ".join(f"{where} {what}" for what, where in reversed(by_colour)),
        ", ".join(f"{where} {what}" for what, where in reversed(by_shape)),
    ]


def questions(scene: Scene) -> list[Question]:
    """Every question that a scene answers."""
    first = scene.things[0]
    if scene.kind == "word":
        return [
            Question("word", "Which word is written?", scene.word, alike=True),
            Question("colour", "What colour are the letters?", first.colour, alike=True),
        ]
    if scene.kind == "count":
        number = NUMBERS[len(scene.things) - 1]
        return [
            Question("count", "How many shapes are there?", number, alike=True),
            Question("count", f"How many {_plural(first.shape)} are there?", number),
            Question("colour", "What colour are the shapes?", first.colour, alike=True),
            Question("shape", "Which shape is drawn again and again?", first.shape, alike=True),
        ]
    if scene.kind == "one":
        return [
            Question("colour", "What colour is the shape?", first.colour, alike=True),
            Question("shape", "Which shape is it?", first.shape, alike=True),
            Question("place", "Where is the shape?", first.place, alike=True),
            Question("colour", f"What colour is the {first.shape}?", first.colour),
            Question("shape", f"Which shape is {first.colour}?", first.shape),
            Question("place", f"Where is the {first.shape}?", first.place),
        ]
    asked = []
    for thing in scene.things:
        asked += [
            Question("colour", f"What colour is the {thing.shape}?", thing.colour),
            Question("shape", f"Which shape is {thing.colour}?", thing.shape),
            Question("place", f"Where is the {thing.shape}?", thing.place),
        ]
    return asked


def balanced(candidates: Sequence[tuple[int, Question]], count: int, rng: np.random.Generator) -> list[int]:
    """Choose `count` questions so that topics, and the answers within each topic, come equally often.

    Args:
        candidates: (group, question) pairs; of one group (a picture, or a set of pictures) at most two are taken.
        count: How many to choose; fewer are returned when the candidates run out.
        rng: Decides between equals.

    Returns:
        Indexes into `candidates`, ascending.
    """
    open_by_cell: dict[tuple[str, str], list[int]] = defaultdict(list)
    for index in rng.permutation(len(candidates)):
        question = candidates[index][1]
        open_by_cell[question.topic, question.answer].append(int(index))
    taken_by_topic: Counter[str] = Counter()
    taken_by_cell: Counter[tuple[str, str]] = Counter()
    taken_by_group: Counter[int] = Counter()
    chosen: list[int] = []
    while len(chosen) < count and open_by_cell:
        cell = min(open_by_cell, key=lambda cell: (taken_by_topic[cell[0]], taken_by_cell[cell], cell))
        index = open_by_cell[cell].pop()
        if not open_by_cell[cell]:
            del open_by_cell[cell]
        group = candidates[index][0]
        if taken_by_group[group] < 2:
            chosen.append(index)
            taken_by_topic[cell[0]] += 1
            taken_by_cell[cell] += 1
            taken_by_group[group] += 1
    return sorted(chosen)


def blind_floor(asked: Sequence[Question]) -> float:
    """The accuracy of always giving each topic's most frequent answer: what can be had without looking."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for question in asked:
        answers[question.topic][question.answer] += 1
    best = sum(counter.most_common(1)[0][1] for counter in answers.values())
    return best / len(asked) if asked else 0.0


def _a(thing: Thing) -> str:
    return f"{'an' if thing.colour[0] in 'aeiou' else 'a'} {thing.colour} {thing.shape}"


def _plural(shape: str) -> str:
    return f"{shape}es" if shape == "cross" else f"{shape}s"


def _many(thing: Thing, number: int) -> str:
    return thing.shape if number == 1 else _plural(thing.shape)
