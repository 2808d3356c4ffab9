"""Which rows are the same picture."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.curate.dedup import U64, _masks, find_near, group_equal, group_near


def naive_groups(hashes: list[int], radius: int) -> list[int]:
    """Connected components by comparing all pairs."""
    group = list(range(len(hashes)))
    for left in range(len(hashes)):
        for right in range(left):
            if (hashes[left] ^ hashes[right]).bit_count() <= radius:
                old, new = max(group[left], group[right]), min(group[left], group[right])
                group = [new if entry == old else entry for entry in group]
    return group


@st.composite
def clustered_hashes(draw: st.DrawFn) -> list[int]:
    """Hashes that are often within a few bits of each other."""
    centres = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = st.lists(st.integers(0, 63), max_size=6)
    picks = draw(st.lists(st.tuples(st.sampled_from(centres), flips), max_size=25))
    return [centre ^ sum(1 << bit for bit in set(bits)) for centre, bits in picks]


@given(clustered_hashes(), st.integers(0, 8), st.sampled_from([3, 1000]))
def test_the_fast_search_finds_the_groups_that_comparing_all_pairs_finds(
    hashes: list[int], radius: int, partition_rows: int
) -> None:
    found = group_near(np.array(hashes, dtype=np.uint64), radius, partition_rows=partition_rows)
    assert found.tolist() == naive_groups(hashes, radius)


@given(st.integers(0, 2**64 - 1), st.sets(st.integers(0, 63), max_size=8), st.integers(1, 10**9))
def test_hashes_within_the_radius_agree_under_some_mask(centre: int, flips: set[int], num_rows: int) -> None:
    other = centre ^ sum(1 << bit for bit in flips)
    masks = [int(mask) for mask in _masks(8, num_rows)]
    assert any(centre & mask == other & mask for mask in masks)


def test_buckets_stay_small_however_many_rows_there_are() -> None:
    for num_rows in (10**3, 10**5, 10**7, 10**8):
        bits = min(int(mask).bit_count() for mask in _masks(4, num_rows))
        assert num_rows >> bits <= 16 and len(_masks(4, num_rows)) <= 35


def test_equal_hashes_by_the_thousand_cost_no_pairs_by_the_million() -> None:
    hashes: U64 = np.repeat(np.array([1, 2**63], dtype=np.uint64), 20_000)
    assert set(group_near(hashes, 1).tolist()) == {0, 20_000}


def test_a_caption_can_tell_near_duplicates_apart() -> None:
    hashes = np.array([0, 1, 1, 3], dtype=np.uint64)
    assert group_near(hashes, 2, np.array([7, 7, 8, 8])).tolist() == [0, 0, 2, 2]


@given(st.lists(st.integers(0, 5)))
def test_equal_keys_form_groups_named_by_their_first(keys: list[int]) -> None:
    assert group_equal(np.array(keys, dtype=np.int64)).tolist() == [keys.index(key) for key in keys]


@pytest.mark.parametrize(("radius", "expected"), [(0, [-1, 1]), (1, [0, 1])])
def test_known_hashes_are_found_within_the_radius(radius: int, expected: list[int]) -> None:
    known = np.array([0b100, 0b011], dtype=np.uint64)
    assert find_near(np.array([0b110, 0b011], dtype=np.uint64), known, radius).tolist() == expected
    assert find_near(known, known[:0], radius).tolist() == [-1, -1]


def test_adding_rows_never_brings_a_dropped_one_back() -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**12, 300, dtype=np.uint64)  # crowded: chains are common
    few = group_near(hashes[1:], 1)
    more = group_near(hashes, 1)
    dropped_before = np.flatnonzero(few != np.arange(299))
    assert (more[dropped_before + 1] != dropped_before + 1).all()
