"""The best checkpoint by a named score outlives the limit."""

import json
from pathlib import Path

import pytest

from owl3.errors import ConfigError
from owl3.train.best import best_checkpoint


def scored(folder: Path, step: int, value: float, title: str = "scenes-single") -> None:
    (folder / "checkpoints" / f"step-{step:06d}").mkdir(parents=True, exist_ok=True)
    summary = folder / "evals" / f"step-{step:06d}" / f"{title}-0123abcd" / "summary.json"
    summary.parent.mkdir(parents=True)
    summary.write_text(json.dumps({"figures": {"accuracy": value}}))


def test_the_highest_score_wins_the_earlier_of_two_equals_and_blind_answers_do_not_count(tmp_path: Path) -> None:
    for step, value in ((10, 0.2), (20, 0.7), (30, 0.7), (40, 0.5)):
        scored(tmp_path, step, value)
    scored(tmp_path, 40, 0.9, "scenes-single-blind")
    best = best_checkpoint(tmp_path, "scenes-single/accuracy")
    assert best == tmp_path / "checkpoints" / "step-000020"


def test_a_checkpoint_that_is_gone_is_no_candidate_and_no_scores_mean_none(tmp_path: Path) -> None:
    assert best_checkpoint(tmp_path, "scenes-single/accuracy") is None
    scored(tmp_path, 10, 0.9)
    scored(tmp_path, 20, 0.1)
    (tmp_path / "checkpoints" / "step-000010").rmdir()
    assert best_checkpoint(tmp_path, "scenes-single/accuracy") == tmp_path / "checkpoints" / "step-000020"


@pytest.mark.parametrize(("score", "message"), [("accuracy", "TASK/FIGURE"), ("scenes-single/f1", "has accuracy")])
def test_a_score_that_there_is_not_is_refused_by_what_there_is(tmp_path: Path, score: str, message: str) -> None:
    scored(tmp_path, 10, 0.9)
    with pytest.raises(ConfigError, match=message):
        best_checkpoint(tmp_path, score)
