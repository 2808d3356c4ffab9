"""How sure a score is: clustered bootstrap intervals.

Questions about one picture rise and fall together, so resampling draws whole groups. Everything is seeded: the same
records give the same interval.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from owl3.eval.items import Record

NUM_RESAMPLES = 1000
SEED = 20240809  # any fixed number; this is the paper's date
_NUMBERS_AT_ONCE = 1 << 22

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Interval:
    """A 95 % interval (or another level) around a figure."""

    low: float
    high: float


def scored(records: Sequence[Record]) -> list[Record]:
    """Those that count."""
    return [record for record in records if record.score is not None]


def mean_of(records: Sequence[Record]) -> float:
    """The mean of the scores there are; 0 without any."""
    kept = [record.score for record in records if record.score is not None]
    return sum(kept) / len(kept) if kept else 0.0


def interval_of(values: Sequence[float] | NDArray[np.float64], level: float) -> Interval:
    """What lies in the middle of resampled values."""
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def group_sums(values: Sequence[float], groups: Sequence[str]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum of values and number of questions of each group, in order of first appearance."""
    index: dict[str, int] = {}
    for group in groups:
        index.setdefault(group, len(index))
    sums, sizes = np.zeros(len(index)), np.zeros(len(index))
    for value, group in zip(values, groups, strict=True):
        sums[index[group]] += value
        sizes[index[group]] += 1
    return sums, sizes


def bootstrap_means(sums: NDArray[np.float64], sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of NUM_RESAMPLES draws of groups with replacement."""
    rng, means = np.random.default_rng(SEED), []
    for rows in blocks(NUM_RESAMPLES, len(sums)):
        draws = rng.integers(0, len(sums), (rows, len(sums)))
        means.append(sums[draws].sum(1) / sizes[draws].sum(1))
    return np.concatenate(means)


def blocks(rows: int, columns: int) -> Iterator[int]:
    """Rows at a time of a matrix that would not fit into memory whole: VQAv2 asks about 40,000 photos."""
    at_once = max(1, _NUMBERS_AT_ONCE // columns)
    while rows > 0:
        yield min(rows, at_once)
        rows -= at_once


def mean_interval(records: Sequence[Record], level: float = 0.95, *, is_share: bool = True) -> Interval | None:
    """Interval of the mean score; None when nothing was scored, or all about one picture.

    Where every group is all right or all wrong, resampling gives one value, as if twenty right answers proved that no
    other is possible: there the interval of a share is the exact one of as many throws of a coin as there are groups.
    """
    kept = scored(records)
    sums, sizes = group_sums([float(r.score or 0) for r in kept], [r.group for r in kept])
    if len(sums) < 2:
        return None
    reach = float(1 - ((1 - level) / 2) ** (1 / len(sums)))
    if is_share and not sums.any():
        return Interval(0.0, reach)
    if is_share and np.array_equal(sums, sizes):
        return Interval(1 - reach, 1.0)
    return interval_of(bootstrap_means(sums, sizes), level)


def figure_interval(
    records: Sequence[Record], figure: Callable[[Sequence[Record]], float], level: float = 0.95, resamples: int = 200
) -> Interval | None:
    """Interval of any figure of a set of records (F1, a mean over subtasks): slower, as it is computed anew each time.

    A question drawn twice counts twice; so a figure must not look questions up by their names.
    """
    kept = scored(records)
    groups = [record.group for record in kept]
    if len(set(groups)) < 2:
        return None
    return interval_of([figure(drawn) for drawn in resampled(kept, groups, resamples)], level)


def resampled(members: Sequence[T], groups: Sequence[str], times: int) -> Iterator[list[T]]:
    """Draws of whole groups with replacement."""
    by_group: dict[str, list[T]] = defaultdict(list)
    for member, group in zip(members, groups, strict=True):
        by_group[group].append(member)
    pools = list(by_group.values())
    rng = np.random.default_rng(SEED)
    for _ in range(times):
        yield [member for index in rng.integers(0, len(pools), len(pools)).tolist() for member in pools[index]]
