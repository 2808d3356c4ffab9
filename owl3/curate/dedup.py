"""Which pictures are the same: exactly, by sha256; nearly, by perceptual hash.

Of each group of alike rows the one with the smallest sample id is kept, whatever the order in which they came. Near
duplicates form groups by chains (A~B, B~C puts A, B, C together), so that adding rows later never brings a dropped one
back.

The search is sub-quadratic: two 64-bit hashes within Hamming distance r agree on at least one of r + 1 bands of bits
(pigeonhole), so only rows that share a band's value are compared. Work per band is one sort plus the pairs inside
buckets; memory is a few numpy arrays of one word per row.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from owl3.config import Config

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_BLOCK_PAIRS = 4_000_000


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


def group_near(hashes: U64, radius: int, also_equal: NDArray[np.integer[Any]] | None = None) -> I64:
    """For each row the smallest row of its group of near duplicates.

    Args:
        hashes: 64-bit perceptual hashes, one per row, rows in the order of preference.
        radius: Largest Hamming distance of a pair.
        also_equal: A number per row that must be equal as well, for example one per distinct caption.
    """
    also = np.zeros(len(hashes), dtype=np.int64) if also_equal is None else also_equal
    first, inverse = _distinct(hashes, also)
    groups = Groups(len(first))
    if radius > 0:
        for left, right in near_pairs(hashes[first], also[first], radius):
            groups.join(left, right)
    return np.asarray(first[groups.roots(np.arange(len(first)))][inverse], dtype=np.int64)


def _distinct(hashes: U64, also: NDArray[np.integer[Any]]) -> tuple[I64, I64]:
    """Number the distinct (hash, also) by their first rows: (first row of each number, number of each row)."""
    order = np.lexsort((also, hashes))  # stable: the smallest row of equal ones comes first
    new = np.ones(len(order), dtype=bool)
    new[1:] = (hashes[order[1:]] != hashes[order[:-1]]) | (also[order[1:]] != also[order[:-1]])
    first = order[new]
    by_first = np.argsort(first)
    number = np.empty(len(first), dtype=np.int64)
    number[by_first] = np.arange(len(first))
    inverse = np.empty(len(order), dtype=np.int64)
    inverse[order] = number[np.cumsum(new) - 1]
    return np.asarray(first[by_first], dtype=np.int64), inverse


def near_pairs(hashes: U64, also: NDArray[np.integer[Any]], radius: int) -> Iterator[tuple[I64, I64]]:
    """All pairs of rows within `radius` and with equal `also`, in blocks; a pair may come more than once."""
    for shift, width in _bands(radius + 1):
        band = (hashes >> np.uint64(shift)) & np.uint64((1 << width) - 1)
        order = np.lexsort((also, band)).astype(np.int64)
        here, there = order[1:], order[:-1]
        edges = np.flatnonzero((band[here] != band[there]) | (also[here] != also[there])) + 1
        starts = np.concatenate([[0], edges])
        ends = np.concatenate([edges, [len(order)]])
        yield from _pairs_in_buckets(hashes, order, (starts, ends), radius)


def _bands(count: int) -> list[tuple[int, int]]:
    """Cut 64 bits into `count` bands of nearly equal width: (shift, width)."""
    edges = [64 * index // count for index in range(count + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _pairs_in_buckets(hashes: U64, order: I64, edges: tuple[I64, I64], radius: int) -> Iterator[tuple[I64, I64]]:
    """Compare each row with the ones that follow it in its bucket: the next, the one after it, and so on."""
    low, high = edges
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
