"""Which pictures are the same: exactly, by sha256; nearly, by perceptual hash.

Of each group of alike rows the one with the smallest sample id is kept, whatever the order in which they came. Near
duplicates form groups by chains (A~B, B~C puts A, B, C together), so that adding rows later never brings a dropped one
back.

The search is sub-quadratic. Cut 64 bits into r + a bands: two hashes within Hamming distance r differ in at most r of
them, so they agree on some a bands whole (pigeonhole). For each choice of a bands, rows are sorted by those bits and
only neighbours in a bucket are compared. `a` grows with the number of rows so that buckets stay small: the work is a
fixed number of sorts, not pairs of rows. Hashes may be a memory map; partitions of rows bound what is held at once.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from owl3.config import Config

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_ALL_BITS = np.uint64(2**64 - 1)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads neighbouring keys over partitions
_BLOCK_PAIRS = 4_000_000
_PARTITION_ROWS = 16_000_000
_BUCKET_ROWS = 8
_MOST_AGREE = 4


class DedupConfig(Config):
    """What counts as the same picture."""

    exact: Literal["media", "media_and_caption", "off"] = "media"
    """`media_and_caption` keeps one picture under several captions (COCO has five per photo)."""
    near_radius: int | None = Field(default=4, ge=0, le=16)
    """Hamming distance of 64-bit perceptual hashes up to which pictures are near duplicates; None checks nothing."""
    near_caption: Literal["any", "same"] = "any"
    """`same` also asks for the same caption."""
    placeholder_urls: int | None = Field(default=10, ge=2)
    """Bytes that come from so many different URLs are a placeholder ("photo no longer available"); all are dropped."""


class Groups:
    """Union-find over rows 0 … n-1; the root of a group is its smallest row."""

    def __init__(self, count: int) -> None:
        self._parent = np.arange(count, dtype=np.int64)

    def join(self, left: I64, right: I64) -> None:
        """Put left[i] and right[i] into one group, for all i at once."""
        if not len(left):
            return
        left, right = self.roots(left), self.roots(right)
        while (different := left != right).any():
            low = np.minimum(left[different], right[different])
            high = np.maximum(left[different], right[different])
            np.minimum.at(self._parent, high, low)
            left, right = self.roots(low), self.roots(high)

    def roots(self, rows: I64) -> I64:
        """The smallest row of each row's group."""
        found: I64 = self._parent[rows]
        while True:
            further: I64 = self._parent[found]
            if np.array_equal(further, found):
                break
            found = further
        self._parent[rows] = found
        return found


def group_equal(keys: NDArray[np.generic]) -> I64:
    """For each row the smallest row with the same key."""
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def group_near(
    hashes: U64,
    radius: int,
    also_equal: NDArray[np.integer[Any]] | None = None,
    partition_rows: int = _PARTITION_ROWS,
) -> I64:
    """For each row the smallest row of its group of near duplicates.

    Args:
        hashes: 64-bit perceptual hashes, one per row, rows in the order of preference; may be a memory map.
        radius: Largest Hamming distance of a pair.
        also_equal: A number per row that must be equal as well, for example one per distinct caption.
        partition_rows: About how many rows are sorted at once.
    """
    groups = Groups(len(hashes))
    for rows in _partitions(hashes, _ALL_BITS, partition_rows):  # equal hashes lie in one partition
        _join_equal(groups, rows, hashes[rows], None if also_equal is None else also_equal[rows])
    everyone = np.arange(len(hashes), dtype=np.int64)
    distinct = everyone[groups.roots(everyone) == everyone]
    few = np.asarray(hashes[distinct])
    also = None if also_equal is None else also_equal[distinct]
    for mask in _masks(radius, len(distinct)) if radius else ():
        for rows in _partitions(few, mask, partition_rows):
            part = None if also is None else also[rows]
            for left, right in _near_pairs(few[rows], few[rows] & mask, part, radius):
                groups.join(distinct[rows[left]], distinct[rows[right]])
    return groups.roots(everyone)


def _partitions(hashes: U64, mask: np.uint64, partition_rows: int) -> Iterator[I64]:
    """Rows in parts of about equal size; hashes that agree under `mask` are always in one part."""
    num_parts = -(-len(hashes) // partition_rows)
    if num_parts <= 1:
        yield np.arange(len(hashes), dtype=np.int64)
        return
    part = np.empty(len(hashes), dtype=np.uint16)
    for start in range(0, len(hashes), _BLOCK_PAIRS):
        block = hashes[start : start + _BLOCK_PAIRS] & mask
        part[start : start + _BLOCK_PAIRS] = ((block * _SPREAD) >> np.uint64(40)) % np.uint64(num_parts)
    for number in range(num_parts):
        yield np.flatnonzero(part == number)


def _join_equal(groups: Groups, rows: I64, hashes: U64, also: NDArray[np.integer[Any]] | None) -> None:
    """Join rows with equal hashes (and equal `also`) to the first of them."""
    order = np.argsort(hashes, kind="stable") if also is None else np.lexsort((also, hashes))
    new = np.ones(len(order), dtype=bool)
    new[1:] = hashes[order[1:]] != hashes[order[:-1]]
    if also is not None:
        new[1:] |= also[order[1:]] != also[order[:-1]]
    first = rows[order[new]][np.cumsum(new) - 1]
    groups.join(first[~new], rows[order[~new]])


def _masks(radius: int, num_rows: int) -> list[np.uint64]:
    """Bits to sort by, such that any two hashes within `radius` agree under one of the masks."""
    agree = 1
    while agree < _MOST_AGREE and num_rows >> (64 * agree // (radius + agree)) > _BUCKET_ROWS:
        agree += 1
    edges = [64 * index // (radius + agree) for index in range(radius + agree + 1)]
    bands = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [np.uint64(sum(chosen)) for chosen in combinations(bands, agree)]


def _near_pairs(
    hashes: U64, keys: U64, also: NDArray[np.integer[Any]] | None, radius: int
) -> Iterator[tuple[I64, I64]]:
    """Pairs within `radius` among rows with equal keys (and equal `also`), in blocks.

    Each row is compared with the one after it in its bucket, then with the one after that, and so on.
    """
    order = (np.argsort(keys, kind="stable") if also is None else np.lexsort((also, keys))).astype(np.int64)
    differs = keys[order[1:]] != keys[order[:-1]]
    if also is not None:
        differs |= also[order[1:]] != also[order[:-1]]
    edges = np.flatnonzero(differs) + 1
    low = np.concatenate([[0], edges])
    high = np.concatenate([edges, [len(order)]])
    step = 1
    while len(low := low[(longer := high - low > step)]):
        high = high[longer]
        counts = high - low - step
        for block in np.array_split(np.arange(len(low)), 1 + int(counts.sum()) // _BLOCK_PAIRS):
            rows = _ranges(low[block], counts[block])
            left, right = order[rows], order[rows + step]
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= radius
            yield left[near], right[near]
        step += 1


def _ranges(starts: I64, counts: I64) -> I64:
    """All of start, start + 1, … start + count - 1, one range after the other."""
    total = int(counts.sum())
    offsets = np.repeat(starts - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    return np.asarray(np.arange(total) + offsets, dtype=np.int64)


def find_near(hashes: U64, known: U64, radius: int) -> I64:
    """For each hash the first of `known` within `radius`, or -1: decontamination, removal lists."""
    found = np.full(len(hashes), -1, dtype=np.int64)
    if not len(known):
        return found
    for start in range(0, len(hashes), block := max(1, _BLOCK_PAIRS // len(known))):
        distance = np.bitwise_count(hashes[start : start + block, None] ^ known[None, :])
        near = distance <= radius
        hit = near.any(axis=1)
        found[start : start + block][hit] = near[hit].argmax(axis=1)
    return found
