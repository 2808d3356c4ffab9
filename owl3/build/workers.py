"""Who writes output shards: this process, or several once the work turns out to be long.

The bytes do not depend on it: a run is a pure function of the config and the tables in the work folder.
"""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import chain
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from owl3 import lifeline
from owl3.build.builders import builder_class
from owl3.build.config import BUILD_CONFIG
from owl3.build.draw import Run
from owl3.build.write import ShardBuilder, shard_name
from owl3.errors import Interrupted
from owl3.progress import Progress
from owl3.tokens import TextTokenizer

_PATIENCE_S = 3.0
"""How long a build goes on in one process before it starts others: about what their imports take."""
_WINDOW = 4
"""Runs that wait per process: enough to keep all busy, few enough to keep memory flat."""


class Workers:
    """Writes runs in this process or in several, a bounded number ahead."""

    def __init__(self, here: ShardBuilder, processes: int | None) -> None:
        self._here = here
        self._folder = here.folder
        self._processes = processes or len(os.sched_getaffinity(0))
        self._patience_s = _PATIENCE_S if processes is None else 0.0
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def write_all(self, runs: Iterator[Run], progress: Progress) -> Iterator[Run]:
        """Write every run that is not done yet; yield each when it is."""
        since = time.monotonic()
        for run in runs:
            if self._processes > 1 and time.monotonic() - since >= self._patience_s:
                yield from self._write_parallel(chain([run], runs), progress)
                return
            if not _is_done(self._folder, run):
                self._here.write(run)
            progress.advance(run.count)
            yield run

    def _write_parallel(self, runs: Iterator[Run], progress: Progress) -> Iterator[Run]:
        pool = self._open_pool()
        waiting: dict[Future[None], Run] = {}
        for run in runs:
            if _is_done(self._folder, run):
                progress.advance(run.count)
                yield run
                continue
            waiting[pool.submit(_write_in_worker, run)] = run
            if len(waiting) >= _WINDOW * self._processes:
                yield from _collect(waiting, progress)
        while waiting:
            yield from _collect(waiting, progress)

    def _open_pool(self) -> ProcessPoolExecutor:
        if self._pool is None:
            builder = self._here.builder
            arguments = (builder.cfg.model_dump(mode="json"), self._folder, builder.workspace, builder.work)
            self._pool = ProcessPoolExecutor(
                self._processes, get_context("spawn"), initializer=_start_worker, initargs=arguments
            )
        return self._pool


def _collect(waiting: dict[Future[None], Run], progress: Progress) -> Iterator[Run]:
    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
    for future in done:
        run = waiting.pop(future)
        try:
            future.result()
        except BrokenProcessPool as error:
            raise Interrupted(
                f"a worker process ended while it wrote shard {run.shard}; run it again to go on"
            ) from error
        progress.advance(run.count)
        yield run


_worker: ShardBuilder | None = None  # of this worker process


def _start_worker(cfg: dict[str, Any], folder: Path, workspace: Path, work: Path) -> None:
    lifeline.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    global _worker  # noqa: PLW0603 - what a process pool's initializer leaves for its tasks
    config = BUILD_CONFIG.validate_python(cfg)
    builder = builder_class(config)(config, workspace, work)
    tokenizer = TextTokenizer.load(workspace / "tokenizers" / config.tokenizer)
    _worker = ShardBuilder(builder, tokenizer, folder, workspace)


def _write_in_worker(run: Run) -> None:
    assert _worker is not None
    _worker.write(run)


def _is_done(folder: Path, run: Run) -> bool:
    return (folder / f"{shard_name(run.shard)}.parquet").is_file()
