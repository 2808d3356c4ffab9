"""Curves elsewhere: what is asked for is written, what is not installed is said in one line."""

from pathlib import Path

import pytest

from owl3.errors import ConfigError
from owl3.train import trackers
from owl3.train.trackers import flat, make_trackers

RECORD = {
    "step": 3,
    "loss": 2.5,
    "learning_rate": {"projector": 0.1},
    "tokens_per_s": 10.0,
    "phase_seconds": {"load": 0.5},
}


def test_a_record_becomes_the_names_people_know() -> None:
    assert flat(RECORD) == {
        "train/loss": 2.5,
        "train/learning_rate/projector": 0.1,
        "perf/tokens_per_s": 10.0,
        "perf/phase_seconds/load": 0.5,
    }


def test_tensorboard_files_lie_beside_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    [tracker] = make_trackers(["tensorboard"], tmp_path, "run/stage")
    tracker.log(3, flat(RECORD))
    tracker.close()
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_an_unknown_or_missing_tracker_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="one of tensorboard, wandb, mlflow"):
        make_trackers(["tensorbord"], tmp_path, "run/stage")

    def absent(name: str) -> None:
        raise ImportError(name=name)

    monkeypatch.setattr(trackers, "import_module", absent)
    with pytest.raises(ConfigError, match="mlflow is not installed; pip install mlflow"):
        make_trackers(["mlflow"], tmp_path, "run/stage")
