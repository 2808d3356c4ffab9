"""What `owl3 plan` says of ranks is what the loader gives them."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.data.balance import idle_share, idle_warning, rank_balance, rank_gap
from owl3.data.pack import share_rows
from tests.data.conftest import write_indexes
from tests.data.test_plan import config, planned


@pytest.mark.parametrize("ranks", [2, 4, 8])
def test_ranks_of_a_long_tailed_mixture_differ_by_ten_percent_at_most(workspace: Path, ranks: int) -> None:
    write_indexes(workspace, "web", 600, 100)
    write_indexes(workspace, "pages", 600, 100)
    plan = planned(workspace, config("web", "pages", global_batch_size=400, steps=3, max_tokens=600, max_tiles=24))
    (balance,) = rank_balance(plan, [ranks])
    assert balance.steps == 3
    assert balance.worst <= 0.1
    assert balance.within == 1
    rows = plan.row_tiles(balance.worst_step)
    loads = [int(rows[share].sum()) for share in share_rows(rows, ranks)]
    assert round(1 - min(loads) / max(loads), 4) == balance.worst


@given(st.lists(st.integers(0, 9), min_size=1))
def test_a_gap_is_a_share_of_the_fullest_rank(loads: list[int]) -> None:
    gap = rank_gap(loads)
    assert 0 <= gap <= 1
    assert (gap == 0) == (len(set(loads)) == 1)


def test_rows_that_do_not_divide_by_the_ranks_are_told_with_the_key_that_mends_it(workspace: Path) -> None:
    write_indexes(workspace, "web", 200, 100)
    same = {"global_batch_size": 50, "steps": 4, "max_tokens": 600, "max_tiles": 24}
    uneven = planned(workspace, config("web", **same))
    rows = [len(uneven.rows(step)) for step in range(uneven.num_steps)]
    ranks = max(rows) - 1  # one row more than ranks: all but one wait
    taken = sum(ranks * -(-count // ranks) for count in rows)
    assert idle_share(uneven, ranks) == pytest.approx(1 - sum(rows) / taken)
    assert f"set data.rows_multiple to {ranks}" in (idle_warning(uneven, ranks) or "")
    even = planned(workspace, config("web", **same, rows_multiple=ranks), name="even")
    assert idle_warning(even, ranks) is None and idle_warning(uneven, 1) is None


def test_fewer_samples_than_ranks_want_fewer_ranks_and_unpacked_rows_another_batch(workspace: Path) -> None:
    write_indexes(workspace, "web", 200, 100)
    plan = planned(workspace, config("web", global_batch_size=6, steps=2, max_tokens=600, max_tiles=24, pack=False))
    assert "use at most 6 ranks" in (idle_warning(plan, 8) or "")
    assert "make data.global_batch_size 6 a multiple of 4" in (idle_warning(plan, 4) or "")
    assert idle_warning(plan, 3) is None
