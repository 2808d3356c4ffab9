from dataclasses import replace

import numpy as np
import pytest

from owl3.errors import InputError
from owl3.eval import stats
from owl3.eval.comparison import Comparison
from owl3.eval.comparison import compare as compare_of
from owl3.eval.floors import majority_floor, random_floor
from owl3.eval.items import Item, Record
from owl3.eval.metrics import pope
from owl3.eval.metrics.choice import circular, whole_questions
from owl3.eval.parsing import parse_closed
from owl3.eval.registry import find_task
from owl3.eval.stats import figure_interval, mean_interval
from owl3.eval.task import Task, mean_score

PLAIN = Task("plain", "1", lambda _: [], lambda item, raw: parse_closed(raw, item.options))
CIRCULAR = replace(PLAIN, aggregate=circular, units=whole_questions)


def compare(first: list[Record], second: list[Record], task: Task = PLAIN) -> Comparison:
    return compare_of(task, first, second)


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


def passes(*scores: tuple[float, ...]) -> list[Record]:
    return [
        replace(record(f"{number}-{turn}", score, group=str(number)), meta={"question": str(number)})
        for number, turns in enumerate(scores)
        for turn, score in enumerate(turns)
    ]


def test_the_interval_of_circular_evaluation_is_that_of_whole_questions() -> None:
    records = passes(*[(1.0, float(i % 2)) for i in range(200)])
    alone = mean_interval([record(str(i), float(i % 2)) for i in range(200)])
    assert mean_interval(whole_questions(records)) == alone


def test_an_interval_of_a_figure_counts_a_question_drawn_twice_twice() -> None:
    records = [record(str(i), float(i % 2)) for i in range(200)]
    exact_one = mean_interval(records)
    found = figure_interval(records, lambda drawn: mean_score(drawn)["accuracy"], resamples=400)
    assert exact_one is not None and found is not None
    assert found.high - found.low == pytest.approx(exact_one.high - exact_one.low, rel=0.1)


@pytest.mark.parametrize(("score", "low", "high"), [(1.0, 0.8316, 1.0), (0.0, 0.0, 0.1684)])
def test_twenty_right_answers_do_not_prove_that_there_are_no_others(score: float, low: float, high: float) -> None:
    """The exact interval of 20 of 20, or of 0 of 20; resampling alone gives none of the doubt."""
    found = mean_interval([record(str(i), score) for i in range(20)])
    assert found is not None
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    together = mean_interval([record(str(i), score, group=str(i // 4)) for i in range(20)])
    assert together is not None
    assert together.high - together.low > 2 * (found.high - found.low)


def test_questions_about_one_picture_say_nothing_of_others() -> None:
    records = [record(str(i), float(i % 2), group="one") for i in range(20)]
    assert mean_interval(records) is None
    assert figure_interval(records, lambda drawn: mean_score(drawn)["accuracy"]) is None


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
    assert random_floor(PLAIN, items) == 0.25
    assert majority_floor(PLAIN, items) == 0.5
    assert random_floor(PLAIN, [*items, Item("free", ("?",), ("x",))]) is None


def test_the_majority_floor_knows_categories() -> None:
    items = [Item("0", ("?",), ("a",), category="x"), Item("1", ("?",), ("b",), category="y")]
    assert majority_floor(PLAIN, items) == 1.0


def test_floors_are_in_the_figure_that_stands_for_the_task() -> None:
    """Four options under four rotations are right by chance once in 256 times, and never by one constant letter."""
    turned = [
        Item(f"{q}-{turn}", ("?",), ("ABCD"[turn],), tuple("wxyz"), meta={"question": str(q)})
        for q in range(500)
        for turn in range(4)
    ]
    task = replace(CIRCULAR, letters=True)
    chance = random_floor(task, turned)
    assert chance is not None and chance == pytest.approx(1 / 256, abs=0.002)
    assert majority_floor(task, turned) == 0.0
    asked = [Item(str(i), ("?",), ("yes" if i % 2 else "no",), ("yes", "no")) for i in range(400)]
    assert majority_floor(find_task("pope"), asked) == pytest.approx(2 / 3)  # F1 of always saying yes
    assert random_floor(find_task("pope"), asked) == pytest.approx(0.5, abs=0.03)


def test_a_paired_comparison_sees_a_difference_that_holds_question_by_question() -> None:
    worse = [record(str(i), float(i % 2)) for i in range(100)]
    better = [record(str(i), 1.0 if i % 10 == 0 else float(i % 2)) for i in range(100)]
    found = compare(worse, better)
    assert (found.first, found.second) == (0.5, 0.6)
    assert (found.num_only_first, found.num_only_second) == (0, 10)
    assert found.difference.low > 0
    assert found.p_value < 0.01
    assert compare(worse, worse).p_value == 1.0


def test_a_comparison_is_in_the_figure_that_stands_for_the_task() -> None:
    """Half of the passes more are right, and not one question more."""
    worse = passes(*[(0.0, 0.0)] * 40, *[(1.0, 1.0)] * 40)
    better = passes(*[(1.0, 0.0)] * 40, *[(1.0, 1.0)] * 40)
    found = compare(worse, better, CIRCULAR)
    assert (found.figure, found.first, found.second, found.num_pairs) == ("circular_accuracy", 0.5, 0.5, 80)
    assert (found.difference.low, found.difference.high, found.p_value) == (0.0, 0.0, 1.0)


def test_a_figure_that_is_no_mean_is_compared_too() -> None:
    def said(right: int) -> list[Record]:
        pairs = [("yes" if i % 2 else "no", i < right) for i in range(200)]
        answers = [gold if is_right else {"yes": "no", "no": "yes"}[gold] for gold, is_right in pairs]
        return [
            Record(str(i), str(i), "random", "?", answer, answer, "strict", (gold,), float(is_right))
            for i, ((gold, is_right), answer) in enumerate(zip(pairs, answers, strict=True))
        ]

    found = compare(said(120), said(160), find_task("pope"))
    assert (found.figure, found.first, found.second) == ("f1", pytest.approx(0.6), pytest.approx(0.8))
    assert found.difference.low > 0.1 and found.p_value < 0.01
    assert (found.num_only_first, found.num_only_second) == (0, 40)
    assert pope.aggregate(said(160))["f1"] == found.second
    assert compare(said(120), said(120), find_task("pope")).p_value == 1.0


def test_results_of_different_tasks_are_not_compared() -> None:
    with pytest.raises(InputError, match="share no scored question"):
        compare([record("a", 1.0)], [record("b", 1.0)])
