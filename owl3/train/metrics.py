"""What a run tells while it runs: `metrics.jsonl` always, and a line for people.

One record per logged step. The file is cut back to the checkpoint that a run resumes from, so each step stands in it
once. It holds speeds, hence times: it is not part of the run's digest.
"""

import json
import math
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

from owl3.progress import Progress
from owl3.storage import write_atomic
from owl3.train.stages import Spikes

METRICS_NAME = "metrics.jsonl"


class Tracker(Protocol):
    """A service that draws curves: TensorBoard, W&B, MLflow."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Record the numbers of a step."""

    def close(self) -> None:
        """Flush and end."""


class MetricsFile:
    """Appends records; a record is on its way to disk as soon as `write` returns."""

    def __init__(self, path: Path, resume_step: int) -> None:
        kept = [line for line in _lines(path) if json.loads(line)["step"] <= resume_step]
        write_atomic(path, "".join(f"{line}\n" for line in kept).encode())
        self._handle = path.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record as a line of JSON; numbers that are not finite become null."""
        self._handle.write(json.dumps(_finite(record), allow_nan=False) + "\n")
        self._handle.flush()

    def close(self) -> None:
        """End the file."""
        self._handle.close()


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole records of a `metrics.jsonl`."""
    return [json.loads(line) for line in _lines(path)]


def _lines(path: Path) -> Iterator[str]:
    """Whole lines; the last one may have been cut off by a kill."""
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("}\n"):
                yield line.rstrip("\n")


@contextmanager
def following(path: Path, progress: Progress, poll_s: float = 0.5) -> Iterator[None]:
    """Count the steps that another process writes to a `metrics.jsonl`, while the block runs."""
    ended = threading.Event()

    def follow() -> None:
        told = 0
        last = False
        while not last:
            last = ended.wait(poll_s)
            step = _last_step(path)
            if step > told:
                progress.advance(step - told)
                told = step

    thread = threading.Thread(target=follow, name="following", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _last_step(path: Path, tail: int = 65536) -> int:
    """Step of the last whole record, 0 where there is none; reads the file's end only."""
    if not path.is_file():
        return 0
    with path.open("rb") as handle:
        handle.seek(max(0, path.stat().st_size - tail))
        whole = [line for line in handle.read().splitlines(keepends=True)[-2:] if line.endswith(b"}\n")]
    return int(json.loads(whole[-1])["step"]) if whole else 0


class SpikeDetector:
    """Tells whether a value stands out from the window of values before it."""

    def __init__(self, settings: Spikes) -> None:
        self._settings = settings
        self._window: deque[float] = deque(maxlen=settings.window)

    def z_score(self, value: float) -> float | None:
        """Take a value in; return how many standard deviations above the window's mean it is, when that is a spike.

        A spike does not enter the window, or a series of them would soon look normal.
        """
        window = self._window
        if len(window) >= min(10, self._settings.window):
            mean = math.fsum(window) / len(window)
            deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in window) / len(window))
            z = (value - mean) / max(deviation, 1e-3 * abs(mean), 1e-12)
            if z > self._settings.z_score:
                return z
        window.append(value)
        return None


class StatusLine:
    """One line about the run: rewritten in place on a terminal, a new one every ten seconds elsewhere."""

    def __init__(self, label: str, total_steps: int) -> None:
        self._label = label
        self._total = total_steps
        self._told = 0.0
        self._began: tuple[float, int] | None = None

    def show(self, record: Mapping[str, Any]) -> None:
        """Tell of a step, if it is time to."""
        now = time.monotonic()
        step = int(record["step"])
        if self._began is None:
            self._began = (now, step)
        is_terminal = sys.stderr.isatty()
        if now - self._told < (0.1 if is_terminal else 10.0) and step < self._total:
            return
        self._told = now
        since, first = self._began
        left = ""  # after the first step nobody knows; its start-up is no measure
        if step > first:
            left = f"  {timedelta(seconds=round((now - since) / (step - first) * (self._total - step)))} left"
        mfu = f"  mfu {record['mfu']:.2f}" if record.get("mfu") else ""
        line = (
            f"{self._label} {step}/{self._total}  loss {record['loss']:.4f}  {record['tokens_per_s']:.0f} tokens/s  "
            f"{record['images_per_s']:.1f} images/s{mfu}  data wait {record['data_wait']:.0%}  "
            f"{record['memory_bytes'] / 2**30:.2f} GiB{left}"
        )
        if is_terminal:  # a line that wraps could not be rewritten in place
            line = line[: shutil.get_terminal_size().columns - 1]
        end = "\n" if not is_terminal or step >= self._total else ""
        sys.stderr.write((f"\r\033[K{line}" if is_terminal else line) + end)
        sys.stderr.flush()
