"""Who is drawn for which sample: a pure function of (seed, ordinal), for ten parents or ten million.

Nothing is shuffled in memory. A keyed permutation says which parent stands at a place of the order, so any worker can
work out any sample. The order goes through all parents once per pass; a parent is drawn at most once per pass, so a
cap of `max_uses` is a number of passes. A sample never spans two passes, so it can't hold a parent twice.
"""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Uint64s = NDArray[np.uint64]
Int64s = NDArray[np.int64]
T = TypeVar("T")

_FEISTEL_ROUNDS = 4
_DRAWN_AT_ONCE = 256
"""Samples whose parents are worked out together."""


def mix(values: Uint64s) -> Uint64s:
    """Scatter 64-bit numbers: the finaliser of splitmix64 (Steele, Lea and Flood, 2014). A bijection."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def key_of(*parts: str | int) -> int:
    """A 64-bit number that depends on all parts, and on nothing else."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Dice:
    """Choices that depend on what they are for, not on how many were made before."""

    def __init__(self, *parts: str | int) -> None:
        self._parts = parts

    def below(self, bound: int, *purpose: str | int) -> int:
        """An even choice of 0 … bound-1."""
        return key_of(*self._parts, *purpose) % bound  # the bias is under bound / 2**64

    def pick(self, options: Sequence[T], *purpose: str | int) -> T:
        """An even choice among `options`."""
        return options[self.below(len(options), *purpose)]


class Permutation:
    """A shuffled order of 0 … size-1 that is computed, not stored: a Feistel network with cycle walking."""

    def __init__(self, size: int, key: int) -> None:
        assert size > 0, "nothing to permute"
        self.size = size
        self._half_bits = np.uint64(max(1, ((size - 1).bit_length() + 1) // 2))
        self._mask = np.uint64((1 << int(self._half_bits)) - 1)
        rounds = np.arange(_FEISTEL_ROUNDS, dtype=np.uint64)
        self._keys = mix(np.full(_FEISTEL_ROUNDS, key % 2**64, np.uint64) ^ mix(rounds))

    def __call__(self, places: Int64s) -> Int64s:
        """Which elements stand at `places`; the domain is at most 4x the size, so few steps walk back into it."""
        values = self._network(places.astype(np.uint64))
        while (outside := values >= np.uint64(self.size)).any():
            values[outside] = self._network(values[outside])
        return values.astype(np.int64)

    def _network(self, values: Uint64s) -> Uint64s:
        left, right = values >> self._half_bits, values & self._mask
        for key in self._keys:
            left, right = right, left ^ (mix(right ^ key) & self._mask)
        return (left << self._half_bits) | right


class Order(Protocol):
    """In which order parents are drawn."""

    size: int

    def at(self, pass_index: int, places: Int64s) -> Int64s:
        """The parents that stand at `places` of a pass."""


class Shuffled:
    """Every pass in a shuffled order of its own."""

    def __init__(self, size: int, *key: str | int) -> None:
        self.size = size
        self._key = key

    def at(self, pass_index: int, places: Int64s) -> Int64s:
        """See `Order`."""
        return Permutation(self.size, key_of(*self._key, "pass", pass_index))(places)


class InFileOrder:
    """As the parents stand in their tables: what a builder does that takes every row once."""

    def __init__(self, size: int) -> None:
        self.size = size

    def at(self, pass_index: int, places: Int64s) -> Int64s:
        """See `Order`."""
        return places


def even_sizes(low: int, high: int, ordinals: Int64s, *key: str | int) -> Int64s:
    """How many parents each sample draws: even over low … high."""
    scattered = mix(ordinals.astype(np.uint64) ^ np.uint64(key_of(*key, "size")))
    return (scattered % np.uint64(high - low + 1)).astype(np.int64) + low


@dataclass(frozen=True, slots=True)
class Run:
    """The samples of one output shard: `count` ordinals from `first`, drawing from `cursor` of the endless order."""

    shard: int
    first: int
    count: int
    cursor: int


def placements(sizes: Sequence[int], cursor: int, population: int, passes: int) -> list[int]:
    """Where in the endless order each sample begins; shorter than `sizes` when all passes are used up."""
    starts = []
    for size in sizes:
        if size > population:
            break
        if cursor % population + size > population:
            cursor += population - cursor % population  # the rest of the pass is too short: leave it
        if cursor + size > population * passes:
            break
        starts.append(cursor)
        cursor += size
    return starts


class Sizes(Protocol):
    """How many parents the samples with these ordinals draw."""

    def __call__(self, ordinals: Int64s, /) -> Int64s:
        """One number per ordinal."""


def plan_runs(
    sizes: Sizes, population: int, passes: int, *, after: Run | None, count: int | None, per_shard: int
) -> Iterator[Run]:
    """Cut `count` more attempts (None: all there are) into output shards, going on after a run that was done before."""
    shard, first, cursor = 0, 0, 0
    if after is not None:
        shard, first = after.shard + 1, after.first + after.count
        cursor = cursor_after(sizes, population, passes, after)
    left = count
    while left is None or left > 0:
        wanted = per_shard if left is None else min(per_shard, left)
        drawn = sizes(np.arange(first, first + wanted, dtype=np.int64)).tolist()
        starts = placements(drawn, cursor, population, passes)
        if not starts:
            return
        yield Run(shard, first, len(starts), cursor)
        if len(starts) < wanted:
            return
        shard, first, cursor = shard + 1, first + len(starts), starts[-1] + drawn[len(starts) - 1]
        left = None if left is None else left - len(starts)


def cursor_after(sizes: Sizes, population: int, passes: int, run: Run) -> int:
    """Where the endless order stands after a run."""
    drawn = sizes(np.arange(run.first, run.first + run.count, dtype=np.int64)).tolist()
    return placements(drawn, run.cursor, population, passes)[-1] + int(drawn[-1])


def draws_of(run: Run, sizes: Sizes, order: Order, passes: int) -> Iterator[tuple[int, int, list[int]]]:
    """Yield (ordinal, pass, drawn parents) for every sample of a run."""
    ordinals = np.arange(run.first, run.first + run.count, dtype=np.int64)
    drawn = sizes(ordinals).tolist()
    starts = placements(drawn, run.cursor, order.size, passes)
    assert len(starts) == run.count, "a run was planned with other sizes"
    for first in range(0, run.count, _DRAWN_AT_ONCE):
        part = slice(first, first + _DRAWN_AT_ONCE)
        yield from _draws(ordinals[part].tolist(), starts[part], drawn[part], order)


def _draws(
    ordinals: Sequence[int], starts: Sequence[int], sizes: Sequence[int], order: Order
) -> Iterator[tuple[int, int, list[int]]]:
    """The same for some samples, a pass at a time: numpy's price per call is paid once, not per sample."""
    numbered = zip(ordinals, starts, sizes, strict=True)
    for pass_index, group in itertools.groupby(numbered, key=lambda entry: entry[1] // order.size):
        samples = list(group)
        places = [np.arange(size, dtype=np.int64) + start % order.size for _, start, size in samples]
        parents = order.at(pass_index, np.concatenate(places)).tolist()
        used = 0
        for ordinal, _, size in samples:
            yield ordinal, pass_index, parents[used : used + size]
            used += size
