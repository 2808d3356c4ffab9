"""Curves elsewhere: what is asked for is written, what is not installed is said in one line."""

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from owl3.errors import ConfigError
from owl3.train import trackers
from owl3.train.trackers import Trackers, flat, make_trackers

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


class Service:
    """Stands for the modules `wandb` and `mlflow`: notes under which id a run was started."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.info = SimpleNamespace(run_id="made-by-mlflow")
        self.id = "made-by-wandb"

    def init(self, *, id: str | None, **settings: Any) -> "Service":
        assert settings["resume"] == "allow"
        self.asked.append(id)
        return self

    def start_run(self, run_id: str | None, run_name: str) -> "Service":
        self.asked.append(run_id)
        return self

    def set_tracking_uri(self, uri: str) -> None:
        self.uri = uri


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_resumed_run_goes_on_with_its_own_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    service = Service()
    monkeypatch.setattr(trackers, "import_module", lambda wanted: service)
    for _ in range(2):
        make_trackers([name], tmp_path / "this", "run/stage")
    make_trackers([name], tmp_path / "another", "run/stage")
    assert service.asked == [None, f"made-by-{name}", None]


def test_a_service_that_fails_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    told: list[int] = []

    class Down:
        def log(self, step: int, values: Mapping[str, float]) -> None:
            told.append(step)
            raise ConnectionError("tracking server: 503")

        def close(self) -> None:
            raise AssertionError("it was given up")

    both = Trackers([Down(), Down()])
    both.log(RECORD)
    both.log(RECORD)
    both.close()
    assert told == [3, 3]
    assert "Down: gets no more records (tracking server: 503)" in caplog.text
