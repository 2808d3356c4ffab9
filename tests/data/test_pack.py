"""Packing loses no sample, breaks no limit, is the same in any company, and ranks get even shares."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owl3.data.pack import one_per_row, pack_steps, share_rows
from owl3.errors import ConfigError

COSTS = st.lists(st.tuples(st.integers(1, 100), st.integers(0, 6)), min_size=1, max_size=40)


def pack(costs: list[tuple[int, int]], max_tokens: int = 100, max_tiles: int = 6) -> np.ndarray:
    tokens, tiles = np.array(costs, dtype=np.int32).T
    return pack_steps(tokens[None], tiles[None], max_tokens, max_tiles)[0]


@settings(deadline=None)
@given(COSTS)
def test_rows_keep_both_limits_and_lose_no_token(costs: list[tuple[int, int]]) -> None:
    rows = pack(costs)
    tokens, tiles = np.array(costs).T
    assert np.bincount(rows, weights=tokens).max() <= 100
    assert np.bincount(rows, weights=tiles).max() <= 6
    assert np.bincount(rows, weights=tokens).sum() == tokens.sum()
    # Rows are numbered without gaps, by the first draw they hold.
    _, firsts = np.unique(rows, return_index=True)
    assert firsts.tolist() == sorted(firsts.tolist())
    assert set(rows.tolist()) == set(range(rows.max() + 1))


@settings(deadline=None)
@given(COSTS)
def test_rows_are_few(costs: list[tuple[int, int]]) -> None:
    rows = pack(costs, max_tiles=1000)
    tokens = np.array(costs)[:, 0]
    # As few rows as best fit needs: fewer than twice the ideal, whatever the order of sizes.
    assert rows.max() + 1 <= max(1, 2 * tokens.sum() / 100)


@settings(deadline=None, max_examples=20)
@given(st.lists(st.lists(st.integers(1, 100), min_size=12, max_size=12), min_size=1, max_size=6))
def test_a_step_is_packed_the_same_alone_and_beside_others(steps: list[list[int]]) -> None:
    tokens = np.array(steps, dtype=np.int32)
    tiles = np.ones_like(tokens)
    together = pack_steps(tokens, tiles, 100, 6)
    alone = [pack_steps(tokens[s : s + 1], tiles[s : s + 1], 100, 6)[0] for s in range(len(steps))]
    assert np.array_equal(together, np.stack(alone))


def test_caption_lengths_fill_rows_of_768_to_95_percent() -> None:
    rng = np.random.default_rng(0)
    # Caption costs as measured on the shared web pairs: short, with a long tail.
    tokens = np.clip(rng.lognormal(3.4, 0.5, (4, 2048)), 10, 300).astype(np.int32)
    rows = pack_steps(tokens, np.ones_like(tokens), 768, 64)
    efficiency = tokens.sum() / ((rows.max(axis=1).astype(int) + 1).sum() * 768)
    assert efficiency > 0.95


def test_rows_of_a_step_are_nearly_equal() -> None:
    tokens = np.random.default_rng(2).integers(10, 120, (3, 512)).astype(np.int32)
    rows = pack_steps(tokens, np.ones_like(tokens), 768, 64)
    for step in range(3):
        loads = np.bincount(rows[step], weights=tokens[step])
        assert loads.max() - loads.min() <= 0.1 * loads.max()


@settings(deadline=None)
@given(COSTS, st.sampled_from([1, 2, 3, 4, 8]))
def test_the_number_of_rows_is_a_multiple(costs: list[tuple[int, int]], multiple: int) -> None:
    tokens, tiles = np.array(costs, dtype=np.int32).T
    rows = pack_steps(tokens[None], tiles[None], 100, 6, multiple)[0]
    num_rows = int(rows.max()) + 1
    assert num_rows % multiple == 0 or num_rows == len(costs) or num_rows == pack(costs).max() + 1
    assert np.bincount(rows, weights=tokens).max() <= 100
    assert np.bincount(rows, weights=tiles).max() <= 6


def test_ranks_that_divide_the_rows_carry_the_same() -> None:
    rng = np.random.default_rng(4)
    tokens, tiles = rng.integers(10, 120, (1, 2048)).astype(np.int32), np.ones((1, 2048), np.int32)
    rows = pack_steps(tokens, tiles, 768, 64, rows_multiple=32)[0]
    of_rows = np.bincount(rows)
    loads = [int(of_rows[share].sum()) for share in share_rows(of_rows, 32)]
    assert max(loads) <= 1.1 * min(loads)


def test_switched_off_every_sample_has_its_own_row() -> None:
    assert one_per_row(2, 3).tolist() == [[0, 1, 2], [0, 1, 2]]


def test_a_step_too_large_for_row_numbers_is_refused() -> None:
    with pytest.raises(ConfigError, match="at most 65536 samples per step"):
        pack_steps(np.ones((1, 70_000), np.int32), np.ones((1, 70_000), np.int32), 10, 10)


@given(st.lists(st.integers(0, 50), max_size=60), st.integers(1, 9))
def test_every_row_goes_to_one_rank_and_counts_differ_by_one(tiles: list[int], world_size: int) -> None:
    shares = share_rows(np.array(tiles, dtype=np.int64), world_size)
    assert sorted(row for share in shares for row in share) == list(range(len(tiles)))
    counts = [len(share) for share in shares]
    assert max(counts) - min(counts) <= 1


def test_ranks_differ_little_in_pictures_where_rows_are_many() -> None:
    tiles = np.random.default_rng(1).integers(1, 16, 128)
    loads = [int(tiles[share].sum()) for share in share_rows(tiles, 8)]
    assert max(loads) <= 1.1 * min(loads)
