from dataclasses import replace

import numpy as np
import pytest

from owl3.errors import InputError
from owl3.eval import stats
from owl3.eval.items import Item, Record
from owl3.eval.metrics.choice import circular
from owl3.eval.stats import compare, figure_interval, majority_floor, mean_interval, random_floor
from owl3.eval.task import exact, mean_score


def record(name: str, score: float | None, group: str = "") -> Record:
    return Record(name, group or name, "", "?", "", None, "failed", (), score)


def test_the_interval_of_a_fair_coin_covers_one_half_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(100):
        flips = [record(str(i), float(flip)) for i, flip in enumerate(rng.integers(0, 2, 80))]
        interval = mean_interval(flips)
        assert interval is not None
        covered += interval.low <= 0.5 <= interval.high
    assert 88 <= covered <= 100


def test_questions_that_share_a_picture_widen_the_interval() -> None:
    alone = [record(str(i), float(i % 2)) for i in range(80)]
    together = [record(str(i), float(i // 8 % 2), group=str(i // 8)) for i in range(80)]
    narrow, wide = mean_interval(alone), mean_interval(together)
    assert narrow is not None and wide is not None
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_slow_interval_agrees_with_the_fast_one_on_a_mean() -> None:
    records = [record(str(i), float(i % 3 == 0)) for i in range(120)]
    fast = mean_interval(records)
    slow = figure_interval(records, lambda drawn: mean_score(drawn)["accuracy"])
    assert fast is not None and slow is not None
    assert slow.low == pytest.approx(fast.low, abs=0.03)
    assert slow.high == pytest.approx(fast.high, abs=0.03)


def test_a_question_drawn_twice_counts_twice_in_circular_evaluation() -> None:
    """Put together by their name, its copies would count once, and the interval come out a quarter too narrow."""
    records = [replace(record(str(i), float(i % 2)), meta={"question": str(i)}) for i in range(200)]
    exact_one = mean_interval(records)
    found = figure_interval(records, lambda drawn: circular(drawn)["circular_accuracy"], resamples=400)
    assert exact_one is not None and found is not None
    assert found.high - found.low == pytest.approx(exact_one.high - exact_one.low, rel=0.1)


def test_many_groups_are_drawn_a_block_at_a_time_with_the_same_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    first = [record(str(i), float(i % 3 == 0)) for i in range(300)]
    second = [record(str(i), float(i % 2 == 0)) for i in range(300)]
    whole, interval = compare(first, second), mean_interval(first)
    monkeypatch.setattr(stats, "_NUMBERS_AT_ONCE", 7 * 300)
    again, blocks = compare(first, second), mean_interval(first)
    assert interval is not None and blocks is not None
    assert again.p_value == pytest.approx(whole.p_value, rel=0.2)
    assert (blocks.low, blocks.high) == pytest.approx((interval.low, interval.high), abs=0.01)


def test_what_was_not_scored_counts_nowhere() -> None:
    assert mean_interval([record("a", None)]) is None
    assert mean_score([record("a", None), record("b", 1.0)]) == {"accuracy": 1.0}


def test_floors_say_what_not_looking_gives() -> None:
    items = [Item(str(i), ("?",), (answer,), ("a", "b", "c", "d")) for i, answer in enumerate("aabc")]
    assert random_floor(items) == 0.25
    assert majority_floor(items, exact) == 0.5
    assert random_floor([*items, Item("free", ("?",), ("x",))]) is None


def test_the_majority_floor_knows_categories() -> None:
    items = [Item("0", ("?",), ("a",), category="x"), Item("1", ("?",), ("b",), category="y")]
    assert majority_floor(items, exact) == 1.0


def test_a_paired_comparison_sees_a_difference_that_holds_question_by_question() -> None:
    worse = [record(str(i), float(i % 2)) for i in range(100)]
    better = [record(str(i), 1.0 if i % 10 == 0 else float(i % 2)) for i in range(100)]
    found = compare(worse, better)
    assert (found.first, found.second) == (0.5, 0.6)
    assert (found.num_only_first, found.num_only_second) == (0, 10)
    assert found.difference.low > 0
    assert found.p_value < 0.01
    assert compare(worse, worse).p_value == 1.0


def test_results_of_different_tasks_are_not_compared() -> None:
    with pytest.raises(InputError, match="share no scored question"):
        compare([record("a", 1.0)], [record("b", 1.0)])
