"""What not looking gives, in the figure that stands for a task: a pick at random, and the best constant answer."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from owl3.eval.items import LETTERS, Item, Parsed, Record
from owl3.eval.stats import mean_of
from owl3.eval.task import Task

NUM_DRAWS = 20
NUM_CANDIDATES = 40  # only frequent answers can win: this keeps a free-answer benchmark from being quadratic


def random_floor(task: Task, items: Sequence[Item]) -> float | None:
    """Expected figure of picking one of the options shown; None when a question has none.

    Exact where the figure is a mean over questions, else the mean over some draws: four options under every rotation
    are right by chance in one of 256 cases, not in one of four.
    """
    if not items or not all(item.options for item in items):
        return None
    chance = sum(1 / len(item.options) for item in items) / len(items)
    if not all(item.answers for item in items):
        return None if task.units else chance
    figures, is_mean = [], True
    for seed in range(NUM_DRAWS):
        records = _guessed(task, items, random.Random(seed))
        figure = _figure(task, records)
        figures.append(figure)
        is_mean = is_mean and abs(figure - mean_of(records)) < 1e-9
        if is_mean and seed == 1:
            break
    return chance if is_mean else sum(figures) / len(figures)


def majority_floor(task: Task, items: Sequence[Item]) -> float | None:
    """Figure of the best constant answer of each category: what knowing the answers' distribution alone would give."""
    by_category: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.answers:
            by_category[item.category].append(item)
    if not by_category:
        return None
    best = {name: _best_constant(task, members) for name, members in by_category.items()}
    return _figure(task, [_answered(task, item, best[item.category]) for item in items if item.answers])


def _best_constant(task: Task, items: Sequence[Item]) -> str:
    counts = Counter(answer for item in items for answer in item.answers)
    candidates = [answer for answer, _ in counts.most_common(NUM_CANDIDATES)]
    worth = {answer: sum(task.score(item, answer) or 0.0 for item in items) for answer in candidates}
    equals = [answer for answer in candidates if worth[answer] > max(worth.values()) - 1e-9]
    if len(equals) == 1:
        return equals[0]
    # Half of POPE is "no": as often right as "yes", with an F1 of 0.
    return max(equals, key=lambda answer: _figure(task, [_answered(task, item, answer) for item in items]))


def _guessed(task: Task, items: Sequence[Item], rng: random.Random) -> list[Record]:
    shown = ((item, LETTERS[: len(item.options)] if task.letters else item.options) for item in items)
    return [_answered(task, item, rng.choice(options)) for item, options in shown]


def _answered(task: Task, item: Item, answer: str) -> Record:
    """An answer's record without its prompt, whose text is long among four hundred pictures."""
    return task.judged(replace(item, prompt=()), answer, Parsed(answer, "strict"))


def _figure(task: Task, records: Sequence[Record]) -> float:
    figures = dict(task.aggregate(records))
    return figures[task.primary(figures)]
