"""How sure a score is: clustered bootstrap intervals, the floors under it, and paired comparison of two runs.

Questions about one picture rise and fall together, so resampling draws whole groups. Everything is seeded: the same
records give the same interval.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from owl3.errors import InputError
from owl3.eval.items import Item, Record

NUM_RESAMPLES = 1000
_NUMBERS_AT_ONCE = 1 << 22
_NAMES = ("question", "circle")  # what passes of one question share, in a record's meta
_SEED = 20240809  # any fixed number; this is the paper's date


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval (or another level) around a figure."""

    low: float
    high: float


def _scored(records: Sequence[Record]) -> list[Record]:
    return [record for record in records if record.score is not None]


def _group_sums(values: Sequence[float], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of values and number of questions of each group, in order of first appearance."""
    index: dict[str, int] = {}
    for group in groups:
        index.setdefault(group, len(index))
    sums, sizes = np.zeros(len(index)), np.zeros(len(index))
    for value, group in zip(values, groups, strict=True):
        sums[index[group]] += value
        sizes[index[group]] += 1
    return sums, sizes


def _bootstrap_means(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of NUM_RESAMPLES draws of groups with replacement."""
    rng, means = np.random.default_rng(_SEED), []
    for rows in _blocks(NUM_RESAMPLES, len(sums)):
        draws = rng.integers(0, len(sums), (rows, len(sums)))
        means.append(sums[draws].sum(1) / sizes[draws].sum(1))
    return np.concatenate(means)


def _blocks(rows: int, columns: int) -> Iterator[int]:
    """Rows at a time of a matrix that would not fit into memory whole: VQAv2 asks about 40,000 photos."""
    at_once = max(1, _NUMBERS_AT_ONCE // columns)
    while rows > 0:
        yield min(rows, at_once)
        rows -= at_once


def mean_interval(records: Sequence[Record], level: float = 0.95) -> Interval | None:
    """Interval of the mean score; None when nothing was scored."""
    kept = _scored(records)
    if not kept:
        return None
    means = _bootstrap_means(*_group_sums([float(r.score or 0) for r in kept], [r.group for r in kept]))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def figure_interval(
    records: Sequence[Record], figure: Callable[[Sequence[Record]], float], level: float = 0.95, resamples: int = 200
) -> Interval | None:
    """Interval of any figure of a set of records (F1, a mean over subtasks): slower, as it is computed anew each time.

    A question drawn twice stands twice under ids of its own, so figures that look ids up keep both.
    """
    kept = _scored(records)
    if not kept:
        return None
    by_group: dict[str, list[Record]] = defaultdict(list)
    for record in kept:
        by_group[record.group].append(record)
    groups = list(by_group.values())
    rng = np.random.default_rng(_SEED)
    copies: dict[tuple[int, int], Sequence[Record]] = {}
    values = []
    for _ in range(resamples):
        drawn: Counter[int] = Counter()
        records = []
        for group in rng.integers(0, len(groups), len(groups)).tolist():
            key = (group, drawn[group])
            if key not in copies:
                copies[key] = _renamed(groups[group], drawn[group])
            records += copies[key]
            drawn[group] += 1
        values.append(figure(records))
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def _renamed(records: Sequence[Record], number: int) -> Sequence[Record]:
    """The same answers as those of other questions: circular evaluation puts together what has one name."""
    if not number:
        return records
    mark = f"~{number}"
    return [
        replace(r, id=r.id + mark, meta={k: f"{v}{mark}" if k in _NAMES else v for k, v in r.meta.items()})
        for r in records
    ]


def random_floor(items: Sequence[Item]) -> float | None:
    """Expected score of picking one of the options shown; None when a question has none."""
    chances = [1 / len(item.options) for item in items if item.options]
    return sum(chances) / len(chances) if chances and len(chances) == len(items) else None


def majority_floor(items: Sequence[Item], score: Callable[[Item, str | None], float | None]) -> float | None:
    """Score of the best constant answer of each category: what knowing the answers' distribution alone would give."""
    by_category: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        if item.answers:
            by_category[item.category].append(item)
    if not by_category:
        return None
    total = 0.0
    for members in by_category.values():
        counts = Counter(answer for item in members for answer in item.answers)
        # Only frequent answers can win; forty candidates keep a free-answer benchmark from being quadratic.
        total += max(sum(score(item, a) or 0.0 for item in members) for a, _ in counts.most_common(40))
    return total / sum(map(len, by_category.values()))


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of answers to the same questions."""

    num_pairs: int
    first: float
    second: float
    difference: Interval
    p_value: float
    """Two-sided, from the sign-flip test over groups: how often chance alone gives a difference as large."""
    num_only_first: int
    num_only_second: int


def compare(first: Sequence[Record], second: Sequence[Record], level: float = 0.95) -> Comparison:
    """Pair answers by question id and say how much better `second` is, and whether that could be chance.

    Raises:
        InputError: they share no scored question.
    """
    theirs: Mapping[str, Record] = {record.id: record for record in _scored(second)}
    pairs = [(record, theirs[record.id]) for record in _scored(first) if record.id in theirs]
    if not pairs:
        raise InputError("the two results share no scored question; compare results of one task")
    a = np.array([x.score for x, _ in pairs], dtype=np.float64)
    b = np.array([y.score for _, y in pairs], dtype=np.float64)
    sums, sizes = _group_sums(list(b - a), [x.group for x, _ in pairs])
    low, high = np.quantile(_bootstrap_means(sums, sizes), [(1 - level) / 2, (1 + level) / 2])
    rng, num_flips, as_large = np.random.default_rng(_SEED), 10 * NUM_RESAMPLES, 0
    for rows in _blocks(num_flips, len(sums)):
        chance = np.abs(rng.choice([-1.0, 1.0], (rows, len(sums))) @ sums)
        as_large += int(np.sum(chance >= abs(sums.sum()) - 1e-9))
    p_value = (as_large + 1) / (num_flips + 1)
    return Comparison(
        num_pairs=len(pairs),
        first=float(a.mean()),
        second=float(b.mean()),
        difference=Interval(float(low), float(high)),
        p_value=float(p_value),
        num_only_first=int(np.sum(a > b)),
        num_only_second=int(np.sum(b > a)),
    )
