"""Quotas are exact in every window, shuffles are full permutations, and both go by ids and seeds alone."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owl3.data.mixture import WINDOW, MixtureConfig, chosen, draw_datasets, quotas, shares, shuffled
from owl3.errors import ConfigError
from owl3.idhash import mix64

SHARES = st.lists(st.integers(1, 10_000), min_size=1, max_size=12)


def mixture(weights: list[float | None], **changes: object) -> MixtureConfig:
    datasets = [{"name": f"d{i}", **({"weight": w} if w else {})} for i, w in enumerate(weights)]
    return MixtureConfig.model_validate({"datasets": datasets, **changes})


@given(SHARES, st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_no_count_strays_a_whole_sample_from_its_ideal(share: list[int], gaps: list[int]) -> None:
    edges = np.cumsum(gaps).tolist()
    table = quotas(share, edges)
    assert table.sum(axis=1).tolist() == edges
    assert (np.diff(table, axis=0) >= 0).all()
    for edge, counts in zip(edges, table.tolist(), strict=True):
        assert all(
            abs(count * sum(share) - edge * part) < sum(share) for count, part in zip(counts, share, strict=True)
        )


@settings(max_examples=25)
@given(SHARES, st.integers(1, 5000), st.integers(0, 2**32))
def test_every_window_holds_each_dataset_at_its_quota(share: list[int], num_draws: int, seed: int) -> None:
    drawn = draw_datasets(share, num_draws, seed)
    assert len(drawn) == num_draws
    for start in range(0, num_draws - WINDOW + 1, WINDOW):
        counts = np.bincount(drawn[start : start + WINDOW], minlength=len(share))
        ideal = np.array(share) * WINDOW / sum(share)
        assert (np.abs(counts - ideal) < 2).all()  # less than one at either edge
    counts = np.bincount(drawn, minlength=len(share))
    assert (np.abs(counts - np.array(share) * num_draws / sum(share)) < 1).all()  # and nothing adds up


def test_whole_quotas_are_met_in_every_window() -> None:
    drawn = draw_datasets([352, 261, 145, 96, 77, 56, 8, 5], 50 * WINDOW, seed=1)
    counts = [np.bincount(drawn[s : s + WINDOW]).tolist() for s in range(0, 50 * WINDOW, WINDOW)]
    assert all(count == [352, 261, 145, 96, 77, 56, 8, 5] for count in counts)


def test_draws_are_spread_inside_a_window_and_not_in_blocks() -> None:
    drawn = draw_datasets([70, 20, 10], 10 * WINDOW, seed=5)
    for start in range(0, 10 * WINDOW, 50):
        counts = np.bincount(drawn[start : start + 50], minlength=3)
        assert (np.abs(counts - [35, 10, 5]) <= 2).all()


@given(st.integers(0, 500), st.integers(0, 2**40), st.integers(0, 5))
def test_a_shuffle_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    keys = mix64(np.arange(size, dtype=np.uint64))
    assert sorted(shuffled(keys, seed, epoch).tolist()) == list(range(size))


def test_epochs_and_seeds_give_other_orders() -> None:
    keys = mix64(np.arange(1000, dtype=np.uint64))
    orders = [tuple(shuffled(keys, seed, epoch).tolist()) for seed in (0, 1) for epoch in (0, 1)]
    assert len(set(orders)) == 4
    # No trace of one order in the next: about one sample in a thousand stays where it was.
    assert sum(a == b for a, b in zip(orders[0], orders[1], strict=True)) < 10


@given(st.sets(st.integers(0, 10_000), min_size=2, max_size=60), st.data())
def test_taking_a_sample_out_keeps_the_order_of_the_others(numbers: set[int], data: st.DataObject) -> None:
    keys = mix64(np.array(sorted(numbers), dtype=np.uint64))
    gone = data.draw(st.integers(0, len(keys) - 1))
    whole = keys[shuffled(keys, seed=7, epoch=0)].tolist()
    fewer = np.delete(keys, gone)
    assert fewer[shuffled(fewer, seed=7, epoch=0)].tolist() == [key for key in whole if key != keys[gone]]


def test_equal_keys_keep_their_order() -> None:
    assert shuffled(np.zeros(5, dtype=np.uint64), seed=1, epoch=0).tolist() == [0, 1, 2, 3, 4]


def test_groups_stay_together_and_are_shuffled_themselves() -> None:
    keys = mix64(np.arange(300, dtype=np.uint64))
    group = np.arange(300) // 100
    order = group[shuffled(keys, seed=1, epoch=0, group=group)]
    assert np.count_nonzero(np.diff(order)) == 2
    starts = {tuple(group[shuffled(keys, seed, 0, group)][::100].tolist()) for seed in range(20)}
    assert len(starts) > 3


def test_a_share_is_chosen_by_id() -> None:
    keys = mix64(np.arange(10_000, dtype=np.uint64))
    picked = chosen(keys, seed=3, share=0.2)
    assert 1900 < picked.sum() < 2100
    assert (chosen(keys[::-1], seed=3, share=0.2) == picked[::-1]).all()
    assert not chosen(keys, seed=3, share=0.0).any()
    assert chosen(keys, seed=3, share=1.0).all()


def test_weights_are_the_decimals_a_person_wrote() -> None:
    one, other = shares(mixture([35.22, 64.78]), [10, 10])
    assert Fraction(one, one + other) == Fraction(3522, 10_000)


def test_shares_follow_sizes_and_temperature() -> None:
    assert shares(mixture([None, None]), [100, 300]) == [100, 300]
    flat = shares(mixture([None, None], temperature=2), [100, 400])
    assert flat[1] / flat[0] == pytest.approx(2, abs=1e-5)


@pytest.mark.parametrize(
    ("sizes", "message"), [([0, 5], "'d0' has no usable sample"), ([5, 0], "'d1' has no usable sample")]
)
def test_an_empty_dataset_gets_no_share(sizes: list[int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        shares(mixture([50, 50]), sizes)


def test_temperature_beside_weights_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature has no effect"):
        mixture([50, 50], temperature=2)
