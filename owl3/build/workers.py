"""Who writes output shards: this process, or several once the work turns out to be long.

The bytes do not depend on it: a run is a pure function of the config and the tables in the work folder.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

from owl3.build.builders import builder_class
from owl3.build.config import BUILD_CONFIG
from owl3.build.draw import Run
from owl3.build.write import ShardBuilder, shard_name
from owl3.errors import Interrupted
from owl3.progress import Progress
from owl3.stopping import WorkerPool
from owl3.tokens import TextTokenizer

_PATIENCE_S = 3.0
"""How long a build goes on in one process before it starts others: about what their imports take."""
_Writer = Callable[[Run], Future[None]]


class Workers:
    """Writes runs in this process, or in several of which this one is one."""

    def __init__(self, here: ShardBuilder, processes: int | None) -> None:
        self._here = here
        self._folder = here.folder
        self._processes = processes or len(os.sched_getaffinity(0))
        self._patience_s = _PATIENCE_S if processes is None else 0.0
        self._open = ExitStack()
        self._idle: list[_Writer] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

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
        """Give whoever is idle the next run, so memory stays flat and all end within a run of each other."""
        if not self._idle:
            self._idle = self._start()
        writing: dict[Future[None], tuple[Run, _Writer]] = {}
        for run in runs:
            if _is_done(self._folder, run):
                progress.advance(run.count)
                yield run
                continue
            if not self._idle:
                yield from self._collect(writing, progress)
            writer = self._idle.pop()
            writing[writer(run)] = run, writer
        while writing:
            yield from self._collect(writing, progress)

    def _start(self) -> list[_Writer]:
        """Start the other processes; a thread of this one, which is taken first, writes while they still import."""
        others = self._processes - 1
        builder = self._here.builder
        arguments = (builder.cfg.model_dump(mode="json"), self._folder, builder.workspace, builder.work)
        pool = WorkerPool(others, _start_worker, *arguments)
        thread = ThreadPoolExecutor(1)
        for executor in (pool, thread):
            self._open.callback(executor.shutdown, cancel_futures=True)
        here = self._here.write
        return [*[lambda run: pool.submit(_write_in_worker, run)] * others, lambda run: thread.submit(here, run)]

    def _collect(self, writing: dict[Future[None], tuple[Run, _Writer]], progress: Progress) -> Iterator[Run]:
        """Wait until a run is written; its writer is idle again."""
        done, _ = wait(writing, return_when=FIRST_COMPLETED)
        for future in done:
            run, writer = writing.pop(future)
            try:
                future.result()
            except BrokenProcessPool as error:
                raise Interrupted(
                    f"a worker process ended while it wrote shard {run.shard}; run it again to go on"
                ) from error
            self._idle.append(writer)
            progress.advance(run.count)
            yield run


_worker: ShardBuilder | None = None  # of this worker process


def _start_worker(cfg: dict[str, Any], folder: Path, workspace: Path, work: Path) -> None:
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
