"""A rank that stalls or fails ends all of them, by name, instead of leaving them in a collective for ever.

Every rank notes what it is doing and since when. When a phase lasts longer than the deadline, or an exception ends the
rank, that note is written to `ranks/rank-N.json` in the stage's folder, where the others find it: a rank that was left
waiting in a collective looks who stopped elsewhere, and says so.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch.distributed as dist

from owl3.errors import Interrupted
from owl3.secrecy import hide
from owl3.storage import write_atomic
from owl3.train.checkpoint import TrainerState
from owl3.train.distributed import World
from owl3.train.loop import StageRun, train
from owl3.train.steps import Row

_EXIT_INTERRUPTED = 3
_COLLECTIVE = ("gloo", "closed by peer", "monitoredbarrier")
_LAST_WORDS_S = 2.0
_WAITING = ("exchange", "compute", "validate")
"""Phases in which a rank may be waiting for others: small exchanges, and gradients reduced in the backward pass."""


def train_watched(run: StageRun, state: TrainerState, deadline_s: float) -> TrainerState:
    """Train as `owl3.train.loop.train`, and turn another rank's end into an error that says which and why.

    Raises:
        Interrupted: another rank failed, died, or stalled for longer than the deadline.
    """
    with Watch(run.folder, run.world, deadline_s) as watch:
        run.watch = watch
        try:
            return train(run, state)
        except RuntimeError as error:
            if run.world.size == 1 or not _is_from_collective(error):
                raise
            others = watch.wait_for_blame() or "another rank died without a word (killed, or out of memory)"
            raise Interrupted(f"rank {run.world.rank}: {others}; run again to resume") from error


@contextmanager
def left_by_others(world: World) -> Iterator[None]:
    """Around the loop nothing is noted down: a rank that is left waiting there can only say that it was.

    Raises:
        Interrupted: instead of the collective's own error.
    """
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not _is_from_collective(error):
            raise
        raise Interrupted(
            f"rank {world.rank}: another rank ended, or was late for longer than --timeout, before or after the steps "
            f"({' '.join(str(error).split())[:120]}); see what it said itself; run again to resume"
        ) from error


def _is_from_collective(error: RuntimeError) -> bool:
    """Gloo raises plain RuntimeErrors; NCCL and the store have classes of their own."""
    told = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        word in told for word in ("gloo", "closed by peer", "monitoredbarr")
    )


@dataclass
class _Note:
    phase: str
    step: int
    rows: Sequence[Row]
    since: float


class Watch:
    """Notes what this rank is doing; ends the process when it lasts too long.

    Args:
        folder: The stage's folder, on a file system that all ranks see.
        world: Who this rank is.
        deadline_s: The longest that one phase of a step may last; each micro-batch is one.
    """

    def __init__(self, folder: Path, world: World, deadline_s: float) -> None:
        self._folder = folder / "ranks"
        self._world = world
        self._deadline_s = deadline_s
        self._note = _Note("start", 0, (), time.monotonic())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, name="owl3-watch", daemon=True)

    def __call__(self, phase: str, step: int, rows: Sequence[Row]) -> None:
        """Say what this rank does from now on."""
        self._note = _Note(phase, step, rows, time.monotonic())

    def __enter__(self) -> Self:
        path = self._path(self._world.rank)
        path.unlink(missing_ok=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _trace: object) -> None:
        self._stop.set()
        self._thread.join()
        if error is not None and self._world.size > 1:
            self._write(f"{type(error).__name__}: {error}")

    def blame(self) -> str:
        """Tell which other ranks stopped, where and why, as far as they said; for the error of a rank left waiting."""
        told = []
        for rank in range(self._world.size):
            path = self._path(rank)
            if rank != self._world.rank and path.is_file():
                told.append(_sentence(json.loads(path.read_bytes())))
        return "; ".join(told)

    def wait_for_blame(self) -> str:
        """The same, when another rank has just ended: it may still be writing down why."""
        until = time.monotonic() + min(_LAST_WORDS_S, self._deadline_s / 4)
        while not (told := self.blame()) and time.monotonic() < until:
            time.sleep(0.05)
        return told

    def _look(self) -> None:
        while not self._stop.wait(min(1.0, self._deadline_s / 4)):
            lasted_s = time.monotonic() - self._note.since
            if lasted_s > self._deadline_s:
                self._end(lasted_s)

    def _end(self, lasted_s: float) -> None:
        """Say where this rank stands, wait a moment for what the others say, and end."""
        self._write(f"no progress for {lasted_s:.0f} s (--timeout)")
        time.sleep(min(_LAST_WORDS_S, self._deadline_s / 4))
        others = self.blame()
        stuck = _sentence(json.loads(self._path(self._world.rank).read_bytes()))
        sys.stderr.write(f"owl3 train: {stuck}{'. Other ranks: ' + others if others else ''}; run again to resume\n")
        sys.stderr.flush()
        os._exit(_EXIT_INTERRUPTED)

    def _write(self, why: str) -> None:
        note = self._note
        samples = [sample_id for _, ids in note.rows for sample_id in ids]
        data: dict[str, Any] = {
            "rank": self._world.rank,
            "phase": note.phase,
            "step": note.step,
            "samples": samples,
            "why": hide(why),
        }
        write_atomic(self._path(self._world.rank), json.dumps(data, indent=1).encode())

    def _path(self, rank: int) -> Path:
        return self._folder / f"rank-{rank:05d}.json"


def _sentence(note: dict[str, Any]) -> str:
    where = "perhaps waiting for another rank" if note["phase"] in _WAITING else "on its own"
    samples = ", ".join(note["samples"][:4]) or "none yet"
    return (
        f"rank {note['rank']} stopped in step {note['step']}, phase {note['phase']} ({where}), samples {samples}: "
        f"{note['why']}"
    )
