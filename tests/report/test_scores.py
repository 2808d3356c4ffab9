"""Scores in the report: what stands beside each, and which is marked best."""

import json
import math
from pathlib import Path

import pytest

from owl3.cards import charts
from owl3.cards.runs import Evaluation
from owl3.report.scores import distractor_curve, score_curve, score_table


def evaluation(checkpoint: str, score: float | None, *, blind: bool = False, questions: int = 120) -> Evaluation:
    interval = None if score is None else (score - 0.1, score + 0.1)
    paper = (("7B-240728", 0.882), ("2B", 0.874))
    return Evaluation("demo/sft", checkpoint, "pope", blind, "f1", score, questions, Path(), interval, paper)


def test_the_best_checkpoint_is_marked_with_interval_and_blind_run_and_the_paper_beside() -> None:
    found = [evaluation("step-000010", 0.5), evaluation("step-000020", 0.7), evaluation("end", 0.6)]
    table = score_table([*found, evaluation("end", 0.95, blind=True)])
    assert table is not None
    assert table["heads"] == [{"title": "pope", "figure": "f1", "beside": "paper: 7B-240728 0.882, 2B 0.874"}]
    cells = {row["checkpoint"]: row["cells"][0] for row in table["rows"]}
    assert [name for name, cell in cells.items() if cell["best"]] == ["step-000020"]
    assert cells["end"]["interval"] == "0.500-0.700"
    assert cells["end"]["blind"] == "0.950"


def test_a_part_of_the_questions_is_never_marked_best() -> None:
    table = score_table([evaluation("step-000010", 0.9, questions=40), evaluation("end", 0.6)])
    assert table is not None
    assert [row["checkpoint"] for row in table["rows"] if row["cells"][0]["best"]] == ["end"]


def test_the_curve_ends_where_the_stage_ended() -> None:
    drawn = str(score_curve([evaluation("step-000010", 0.5), evaluation("end", 0.6)], 30))
    assert "<b>0.6</b>" in drawn
    assert ">30</text>" in drawn


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0.3, 9.0, ["1", "2", "5"]), (0.5, 40.0, ["1", "10"]), (0.05, 80.0, ["0.1", "1", "10"]), (1.2, 1.4, None)],
)
def test_a_logarithmic_axis_has_round_numbers(low: float, high: float, expected: list[str] | None) -> None:
    found = charts.log_ticks(math.log10(low), math.log10(high))
    assert found
    assert expected is None or set(expected) <= {charts.number(10**value) for value in found}
    assert all(math.log10(low) <= value <= math.log10(high) for value in found)


def test_nothing_is_best_where_nothing_is_scored() -> None:
    table = score_table([evaluation("end", None)])
    assert table is not None
    assert table["rows"][0]["cells"][0]["best"] is False


def test_a_band_lies_inside_of_the_picture_that_it_widens() -> None:
    drawn = str(charts.lines({"a": [(0, 0.5), (10, 0.6)]}, caption="c", bands={"a": [(0, 0.1, 0.9), (10, 0.2, 0.95)]}))
    points = drawn.split("<polygon")[1].split('points="')[1].split('"')[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 4
    assert all(10 <= height <= 204 for height in heights)


def test_distractor_curves_of_stage_ends_are_drawn_with_the_published_ones_beside(tmp_path: Path) -> None:
    figures = {"circular_accuracy": 0.5, "circular_accuracy_1": 0.9, "circular_accuracy_50": 0.4}
    (tmp_path / "summary.json").write_text(json.dumps({"figures": figures}))
    (tmp_path / "manifest.json").write_text("{}")
    one = Evaluation("demo/sft", "end", "distractor-mmbench", False, "circular_accuracy", 0.5, 9, tmp_path)
    drawn = str(distractor_curve([one, evaluation("step-000010", 0.5)]))
    assert "demo/sft distractor-mmbench" in drawn
    assert "mPLUG-Owl3 (7B-240728), published" in drawn
    assert distractor_curve([evaluation("step-000010", 0.5)]) is None
