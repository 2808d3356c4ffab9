"""In which order samples are drawn: exact shares of each dataset, and a full shuffle of each per epoch.

Two questions are answered apart, both as pure functions of their arguments:

- *Which dataset gives draw number i?* `draw_datasets`. In every window of 1,000 draws each dataset gets its quota, and
  no count ever strays a whole sample from the ideal at a window's edge (earliest deadline first, which Tijdeman
  showed to be always possible). Multinomial draws, as other loaders make them, stray by √n.
- *Which of its samples?* `shuffled`. Samples are sorted by a hash of (sample id, seed, epoch): a full permutation that
  depends on ids, never on positions. Re-sharding keeps it, and taking one sample out moves nobody before it.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from owl3.config import Config
from owl3.errors import ConfigError
from owl3.idhash import U64, mix64

WINDOW = 1000
"""Draws in which every dataset gets its exact quota."""

_SUM_TOLERANCE = Fraction(5, 100)
"""Published percentages are rounded: the paper's stage-3 table adds up to 99.99."""


class DatasetConfig(Config):
    """One samples artifact of a mixture."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """Name below `samples/`."""
    weight: float | None = Field(default=None, gt=0, le=100)
    """Share of all draws in percent; give it for every dataset or for none (then shares follow sizes)."""
    max_samples: int | None = Field(default=None, gt=0)
    """Use at most so many of its samples, chosen by the seed."""
    max_epochs: float | None = Field(default=None, gt=0)
    """How often its samples may be repeated; default: the mixture's."""
    cut: float = Field(default=0.0, ge=0, le=1)
    """Share of its single-picture samples that are cut into tiles."""
    needs: str = ""
    """What to get, and from where, when the artifact is not there yet."""


class MixtureConfig(Config):
    """Datasets and how much of each."""

    datasets: tuple[DatasetConfig, ...] = Field(min_length=1)
    temperature: float | None = Field(default=None, gt=0)
    """Without weights: shares ∝ size^(1/temperature). 1 is proportional; larger favours small datasets."""
    max_epochs: float = Field(default=1.0, gt=0)
    """Planning fails when a dataset would be repeated more often than this."""

    @model_validator(mode="after")
    def _is_one_mixture(self) -> Self:
        names = [dataset.name for dataset in self.datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"dataset {twice[0]!r} is listed twice; join the two entries")
        weights = [dataset.weight for dataset in self.datasets if dataset.weight is not None]
        if weights and len(weights) < len(names):
            missing = next(dataset.name for dataset in self.datasets if dataset.weight is None)
            raise ValueError(f"dataset {missing!r} has no weight; give one to every dataset or to none")
        if weights and self.temperature is not None:
            raise ValueError("temperature has no effect when weights are given; remove one of the two")
        total = sum((_exact(weight) for weight in weights), Fraction(0))
        if weights and abs(total - 100) > _SUM_TOLERANCE:
            raise ValueError(f"weights are percentages and must add up to 100, these give {float(total):g}")
        return self


def shares(mixture: MixtureConfig, sizes: Sequence[int]) -> list[int]:
    """Return whole-number shares of the datasets; only their ratios matter.

    Args:
        sizes: Usable samples per dataset, in the mixture's order.

    Raises:
        ConfigError: when a dataset with a share has no sample.
    """
    for dataset, size in zip(mixture.datasets, sizes, strict=True):
        if size == 0:
            raise ConfigError(
                f"mixture: dataset {dataset.name!r} has no usable sample, so it can't have a share; "
                "remove it, or look at the drop reasons in its manifest"
            )
    if mixture.datasets[0].weight is not None:
        weights = [_exact(dataset.weight or 0) for dataset in mixture.datasets]
        scale = math.lcm(*(weight.denominator for weight in weights))
        return [int(weight * scale) for weight in weights]
    if mixture.temperature in (None, 1.0):
        return list(sizes)
    # A millionth of the largest is finer than any quota of a real run can show.
    powers = [(size / max(sizes)) ** (1 / (mixture.temperature or 1.0)) for size in sizes]
    return [max(1, round(1_000_000 * power)) for power in powers]


def quotas(share: Sequence[int], edges: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return how many of the first `edges[k]` draws each dataset gets: array (edges, datasets).

    Every row adds up to its edge, no column ever falls, and every entry lies less than 1 from `edge * share / total`.

    Args:
        share: Whole-number shares, each at least 1.
        edges: Rising numbers of draws.
    """
    total = sum(share)
    counts = [0] * len(share)
    table = np.zeros((len(edges), len(share)), dtype=np.int64)
    for k, edge in enumerate(edges):
        counts = [max(count, edge * part // total) for count, part in zip(counts, share, strict=True)]
        for _ in range(edge - sum(counts)):
            # Of those still under their ideal count, the one whose next draw is due first.
            due = [
                ((count + 1) / part, d)
                for d, (count, part) in enumerate(zip(counts, share, strict=True))
                if count * total < edge * part
            ]
            counts[min(due)[1]] += 1
        table[k] = counts
    return table


def draw_datasets(share: Sequence[int], num_draws: int, seed: int) -> npt.NDArray[np.uint8]:
    """Return the dataset number of each draw, spread evenly: array (num_draws,).

    Raises:
        ConfigError: more than 256 datasets.
    """
    if len(share) > 256:
        raise ConfigError(f"mixture: {len(share)} datasets; at most 256 fit in a plan")
    edges = [*range(WINDOW, num_draws, WINDOW), num_draws]
    counts = np.diff(quotas(share, edges), axis=0, prepend=0)  # (windows, datasets)
    drawn = np.empty(num_draws, dtype=np.uint8)
    windows_at_once = 1024  # a million draws: bounds memory, changes nothing
    for first in range(0, len(edges), windows_at_once):
        part = counts[first : first + windows_at_once]
        window, dataset = np.divmod(np.arange(part.size), len(share))
        group = np.repeat(np.arange(part.size), part.ravel())
        nth = np.arange(len(group)) - np.repeat(np.cumsum(part.ravel()) - part.ravel(), part.ravel())
        # The nth of c draws stands at (n + phase) / c of its window; phases keep rare datasets from bunching up.
        phase = unit(mix64(mix64(salt(seed) ^ (window + first).astype(np.uint64)) + dataset.astype(np.uint64)))
        when = window[group] + (nth + phase[group]) / np.maximum(part.ravel(), 1)[group]
        start = first * WINDOW
        drawn[start : start + len(group)] = dataset[group][np.argsort(when, kind="stable")]
    return drawn


def shuffled(keys: U64, seed: int, epoch: int, group: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
    """Return the seeded permutation of one dataset for one epoch.

    Args:
        keys: 64 bits of each sample's id.
        group: When given, samples of one group stay together and groups are taken in a shuffled order of their own
            (shard groups: reading stays local, the shuffle is full inside a group).
    """
    order = _sorted_by(mix64(keys ^ salt(seed, epoch)))
    if group is None:
        return order
    rank = mix64(group.astype(np.uint64) ^ ~salt(seed, epoch))
    return order[np.argsort(rank[order], kind="stable")]


def chosen(keys: U64, seed: int, share: float) -> npt.NDArray[np.bool_]:
    """Choose a share of samples by their ids, the same ones in every epoch and at every place."""
    return unit(mix64(keys ^ salt(seed, *b"chosen"))) < share


def held_out(keys: U64, share: float) -> npt.NDArray[np.bool_]:
    """Which samples are kept for validation: chosen by id alone, so that no stage trains on another one's."""
    return unit(mix64(keys ^ salt(*b"held out"))) < share


def salt(*numbers: int) -> U64:
    """Scramble some whole numbers into one: array (1,), to be broadcast."""
    value = np.zeros(1, dtype=np.uint64)
    for number in numbers:
        value = mix64(value ^ np.array([number], dtype=np.uint64))
    return value


def unit(value: U64) -> npt.NDArray[np.float64]:
    """Map 64-bit numbers to [0, 1)."""
    return (value >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _sorted_by(keys: U64) -> npt.NDArray[np.int64]:
    """Argsort, ties in the order they stand; the fast unstable sort is used when there are none (nearly always)."""
    order = np.argsort(keys)
    ordered = keys[order]
    return np.argsort(keys, kind="stable") if np.any(ordered[1:] == ordered[:-1]) else order


def _exact(weight: float) -> Fraction:
    """The decimal a person wrote, not the binary fraction near it."""
    return Fraction(repr(weight))
