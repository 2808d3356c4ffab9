"""Curves elsewhere, when asked for: TensorBoard, W&B, MLflow. Off by default; `metrics.jsonl` is always written.

Nothing here needs a network: W&B is offline unless its own variables say otherwise, MLflow writes beside the run. A run
that is resumed goes on with its own curves; the ids by which the services know it lie beside their files.
"""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from owl3.errors import ConfigError
from owl3.storage import write_atomic
from owl3.train.command import TRACKERS
from owl3.train.metrics import Tracker

logger = logging.getLogger(__name__)


def make_trackers(names: Sequence[str], folder: Path, run: str) -> list[Tracker]:
    """Start the trackers of these names; their files lie in `folder`.

    Raises:
        ConfigError: for an unknown name, or one whose package is not installed.
    """
    made: list[Tracker] = []
    for name in names:
        if name not in TRACKERS:
            raise ConfigError(f"--report-to {name}: one of {', '.join(TRACKERS)}")
        folder.mkdir(parents=True, exist_ok=True)
        makers: dict[str, Callable[[Path, str], Tracker]]
        makers = {"tensorboard": _TensorBoard, "wandb": _Wandb, "mlflow": _MLflow}
        made.append(makers[name](folder, run))
    return made


class Trackers:
    """All of them. One that fails while the run goes on is given up, aloud: `metrics.jsonl` holds every record."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def log(self, record: Mapping[str, Any]) -> None:
        """Tell them of a step."""
        for tracker in list(self._trackers):
            try:
                tracker.log(record["step"], flat(record))
            except Exception as error:  # noqa: BLE001 - whatever a service's client raises: days of training go on
                self._trackers.remove(tracker)
                name = type(tracker).__name__.strip("_")
                logger.warning("%s: gets no more records (%s); metrics.jsonl has them all", name, error)

    def close(self) -> None:
        """Flush and end."""
        for tracker in self._trackers:
            tracker.close()


def flat(record: Mapping[str, Any]) -> dict[str, float]:
    """A record as named numbers, in the spelling people know: train/loss, perf/tokens_per_s, …"""
    numbers: dict[str, float] = {}
    for key, value in record.items():
        group = "perf" if key in _PERFORMANCE else "train"
        if isinstance(value, Mapping):
            numbers |= {f"{group}/{key}/{part}": float(number) for part, number in value.items()}
        elif isinstance(value, int | float) and key != "step":
            numbers[f"{group}/{key}"] = float(value)
    return numbers


_PERFORMANCE = frozenset(
    {"seconds", "phase_seconds", "data_wait", "tokens_per_s", "images_per_s", "memory_bytes", "mfu"}
)


def _package(name: str, tracker: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"--report-to {tracker}: {error.name} is not installed; pip install {tracker}") from error


def _known(path: Path) -> str | None:
    """The id under which a service knows this run, when it was started before."""
    return path.read_text(encoding="utf-8") if path.is_file() else None


class _TensorBoard:
    def __init__(self, folder: Path, run: str) -> None:
        writer = _package("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._writer = writer(str(folder / "tensorboard"))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Wandb:
    def __init__(self, folder: Path, run: str) -> None:
        os.environ.setdefault("WANDB_MODE", "offline")
        known_as = folder / "wandb-id"
        wandb = _package("wandb", "wandb")
        self._run = wandb.init(project="owl3", name=run, id=_known(known_as), resume="allow", dir=folder)
        write_atomic(known_as, str(self._run.id).encode())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    def __init__(self, folder: Path, run: str) -> None:
        self._mlflow = _package("mlflow", "mlflow")
        if "MLFLOW_TRACKING_URI" not in os.environ:
            self._mlflow.set_tracking_uri((folder / "mlruns").resolve().as_uri())
        known_as = folder / "mlflow-id"
        started = self._mlflow.start_run(run_id=_known(known_as), run_name=run)
        write_atomic(known_as, str(started.info.run_id).encode())

    def log(self, step: int, values: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._mlflow.end_run()
