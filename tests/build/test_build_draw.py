"""Drawing: every parent once per pass, nobody twice in a sample, sizes and places even."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from owl3.build.draw import Dice, Permutation, Run, Shuffled, draws_of, even_sizes, placements, plan_runs
from owl3.build.long_image import needle_place


@given(st.integers(1, 700), st.integers(0, 2**64 - 1))
def test_a_permutation_visits_everything_once(size: int, key: int) -> None:
    found = Permutation(size, key)(np.arange(size))
    assert sorted(found.tolist()) == list(range(size))


def test_a_permutation_of_ten_million_needs_no_table() -> None:
    order = Permutation(10_000_000, 7)
    places = np.array([0, 1, 9_999_999])
    assert order(places).tolist() == order(places).tolist()
    assert len(set(order(np.arange(100_000)).tolist())) == 100_000


def test_keys_give_unrelated_orders() -> None:
    places = np.arange(1000)
    agree = (Permutation(1000, 1)(places) == Permutation(1000, 2)(places)).mean()
    assert agree < 0.01


@given(st.integers(1, 40), st.lists(st.integers(1, 8), min_size=1, max_size=60), st.integers(1, 4))
def test_samples_never_span_passes_and_never_overlap(population: int, sizes: list[int], passes: int) -> None:
    starts = placements(sizes, 0, population, passes)
    ends = [start + size for start, size in zip(starts, sizes, strict=False)]
    assert all(start // population == (end - 1) // population for start, end in zip(starts, ends, strict=True))
    assert all(end <= after for end, after in zip(ends, starts[1:], strict=False))
    assert all(end <= population * passes for end in ends)


@given(st.integers(8, 60), st.integers(1, 3), st.integers(1, 9))
def test_nobody_is_used_beyond_the_cap_nor_twice_in_a_sample(population: int, passes: int, per_shard: int) -> None:
    def sizes(ordinals: np.ndarray) -> np.ndarray:
        return even_sizes(3, 8, ordinals, "test", 0)

    runs = list(plan_runs(sizes, population, passes, after=None, count=None, per_shard=per_shard))
    order, uses = Shuffled(population, "test", 0), Counter[int]()
    for run in runs:
        for _, _, drawn in draws_of(run, sizes, order, passes):
            assert len(set(drawn)) == len(drawn)
            uses.update(drawn)
    assert max(uses.values()) <= passes


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 50), st.integers(1, 7), st.integers(1, 50))
def test_runs_go_on_where_the_wave_before_ended(first_wave: int, per_shard: int, second_wave: int) -> None:
    def sizes(ordinals: np.ndarray) -> np.ndarray:
        return even_sizes(2, 5, ordinals, "test", 3)

    def all_draws(runs: list[Run]) -> list[list[int]]:
        order = Shuffled(100, "test", 3)
        return [drawn for run in runs for _, _, drawn in draws_of(run, sizes, order, 50)]

    first = list(plan_runs(sizes, 100, 50, after=None, count=first_wave, per_shard=per_shard))
    second = list(plan_runs(sizes, 100, 50, after=first[-1], count=second_wave, per_shard=per_shard))
    whole = list(plan_runs(sizes, 100, 50, after=None, count=first_wave + second_wave, per_shard=1000))
    assert all_draws(first + second) == all_draws(whole)
    assert [after.shard - run.shard for run, after in pairwise(first + second)] == [1] * (len(first + second) - 1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_number_of_images_is_even_over_its_range(seed: int) -> None:
    counts = np.bincount(even_sizes(3, 8, np.arange(30_000), "interleaved_caption", seed))[3:]
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 0.001


def test_needle_depth_is_even() -> None:
    places = Counter[int]()
    for ordinal in range(20_000):
        within = Dice("long", ordinal).below(1 << 32, "needle") / (1 << 32)
        places[needle_place(ordinal % 10, 10, 50, within)] += 1
    assert set(places) == set(range(50))
    assert chisquare([places[place] for place in range(50)]).pvalue > 0.001


def test_the_place_of_the_wanted_image_is_even() -> None:
    counts = Counter(Dice("selective_caption", "1", 0, ordinal).below(4, "target") for ordinal in range(20_000))
    assert chisquare(list(counts.values())).pvalue > 0.001
