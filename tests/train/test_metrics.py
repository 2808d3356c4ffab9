"""What a run tells while it runs: records that others can follow, and one line for people."""

import io
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from owl3.progress import Silent
from owl3.train.metrics import MetricsFile, StatusLine, following


class Counting(Silent):
    """Counts what it is told."""

    def __init__(self) -> None:
        self.done = 0

    def advance(self, units: int = 1) -> None:
        self.done += units


def _record(step: int) -> dict[str, Any]:
    speeds = {"tokens_per_s": 123456.0, "images_per_s": 1234.5, "data_wait": 0.01, "memory_bytes": 2**36}
    return {"step": step, "loss": 1.0, **speeds}


def test_steps_of_another_process_are_counted_while_it_runs(tmp_path: Path) -> None:
    path, progress = tmp_path / "metrics.jsonl", Counting()
    with following(path, progress, poll_s=0.001):
        written = MetricsFile(path, resume_step=0)
        for step in range(1, 8):
            written.write(_record(step))
        written.close()
    assert progress.done == 7


def test_a_run_that_goes_on_counts_the_steps_it_had(tmp_path: Path) -> None:
    path, progress = tmp_path / "metrics.jsonl", Counting()
    path.write_text(json.dumps({"step": 40}) + "\n" + json.dumps({"step": 41})[:-3])  # cut off by a kill
    with following(path, progress, poll_s=0.001):
        pass
    assert progress.done == 40


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_line_on_a_terminal_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapped line can't be rewritten in place: each step would leave its first half behind."""
    shown = _Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    monkeypatch.setenv("COLUMNS", "80")
    line = StatusLine("multi_image", 11_000)
    line.show(_record(1))
    assert len(shown.getvalue().removeprefix("\r\033[K")) < 80


def test_time_left_is_told_in_hours_once_it_can_be_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter([100.0, 120.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    line = StatusLine("sft", 1_000)
    line.show(_record(1))
    assert "left" not in capsys.readouterr().err
    line.show(_record(2))
    assert "5:32:40 left" in capsys.readouterr().err


def test_a_number_that_is_not_finite_becomes_null_however_deep_it_stands(tmp_path: Path) -> None:
    written = MetricsFile(tmp_path / "metrics.jsonl", resume_step=0)
    written.write({"step": 1, "loss": math.inf, "validation": {"single": math.nan, "multi": 2.0}})
    written.close()
    [line] = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "step": 1,
        "loss": None,
        "validation": {"single": None, "multi": 2.0},
    }
