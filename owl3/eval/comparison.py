"""Two results of one task, question by question: how much better is the second, and could that be chance?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from owl3.errors import InputError
from owl3.eval.items import Record
from owl3.eval.registry import find_task
from owl3.eval.results import read_records, read_summary
from owl3.eval.stats import SEED, Interval, blocks, bootstrap_means, group_sums, interval_of, mean_of, resampled, scored
from owl3.eval.task import Task

NUM_FLIPS = 10_000
NUM_SLOW = 400  # resamples, and flips, of a figure that is computed anew each time

Pair = tuple[Record, Record]
Figure = Callable[[Sequence[Record]], float]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of answers to the same questions, in the figure that stands for their task."""

    figure: str
    num_pairs: int
    first: float
    second: float
    difference: Interval
    p_value: float
    """Two-sided: how often chance alone, swapping the two sides of whole groups, gives a difference as large."""
    num_only_first: int
    """Units that scored higher in the first: questions, or whole circles of passes."""
    num_only_second: int


def compare_results(first: Path, second: Path) -> Comparison:
    """Compare two finished results.

    Raises:
        InputError: they are of different tasks or versions, or share no scored question.
    """
    summaries = [read_summary(folder) for folder in (first, second)]
    for key, word in (("task", "tasks"), ("task_version", "versions of a task")):
        if summaries[0][key] != summaries[1][key]:
            raise InputError(
                f"{first} and {second}: results of different {word} ({summaries[0][key]}, {summaries[1][key]}) "
                "can't be compared"
            )
    return compare(find_task(summaries[0]["task"]), read_records(first), read_records(second))


def compare(task: Task, first: Sequence[Record], second: Sequence[Record], level: float = 0.95) -> Comparison:
    """Pair answers by question id.

    Raises:
        InputError: they share no scored question.
    """
    theirs: Mapping[str, Record] = {record.id: record for record in scored(second)}
    shared = [record for record in scored(first) if record.id in theirs]
    if not shared:
        raise InputError("the two results share no scored question; compare results of one task")
    answers = shared, [theirs[record.id] for record in shared]
    units = [list(task.units(side)) if task.units else list(side) for side in answers]
    figures = [dict(task.aggregate(side)) for side in answers]
    name = task.primary(figures[0])
    values = [part[name] for part in figures]
    pairs = list(zip(*units, strict=True))
    if all(abs(mean_of(side) - value) < 1e-9 for side, value in zip(units, values, strict=True)):
        difference, p_value = _of_means(pairs, level)
    else:
        difference, p_value = _of_figures(pairs, lambda drawn: dict(task.aggregate(drawn)).get(name, 0.0), level)
    gains = [(y.score or 0.0) - (x.score or 0.0) for x, y in pairs]
    return Comparison(
        figure=name,
        num_pairs=len(pairs),
        first=values[0],
        second=values[1],
        difference=difference,
        p_value=p_value,
        num_only_first=sum(gain < 0 for gain in gains),
        num_only_second=sum(gain > 0 for gain in gains),
    )


def _of_means(pairs: Sequence[Pair], level: float) -> tuple[Interval, float]:
    """Interval and p-value where the figure is the mean of the units."""
    gains = [(y.score or 0.0) - (x.score or 0.0) for x, y in pairs]
    sums, sizes = group_sums(gains, [x.group for x, _ in pairs])
    rng, as_large = np.random.default_rng(SEED), 0
    for rows in blocks(NUM_FLIPS, len(sums)):
        chance = np.abs(rng.choice([-1.0, 1.0], (rows, len(sums))) @ sums)
        as_large += int(np.sum(chance >= abs(sums.sum()) - 1e-9))
    return interval_of(bootstrap_means(sums, sizes), level), (as_large + 1) / (NUM_FLIPS + 1)


def _of_figures(pairs: Sequence[Pair], figure: Figure, level: float) -> tuple[Interval, float]:
    """The same for any figure of a set of answers."""

    def gain(drawn: Sequence[Pair]) -> float:
        return figure([y for _, y in drawn]) - figure([x for x, _ in drawn])

    groups = [x.group for x, _ in pairs]
    gains = [gain(drawn) for drawn in resampled(pairs, groups, NUM_SLOW)]
    rng, found, as_large = np.random.default_rng(SEED), abs(gain(pairs)), 0
    names = sorted(set(groups))
    for _ in range(NUM_SLOW):
        swapped = dict(zip(names, rng.integers(0, 2, len(names)).tolist(), strict=True))
        turned = [(y, x) if swapped[group] else (x, y) for (x, y), group in zip(pairs, groups, strict=True)]
        as_large += abs(gain(turned)) >= found - 1e-9
    return interval_of(gains, level), (as_large + 1) / (NUM_SLOW + 1)
