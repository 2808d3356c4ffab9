"""Derived rows of all artifacts of a card, as Parquet in a scratch folder: in this process, or in several once it takes
long. What is found does not depend on it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from owl3 import lifeline
from owl3.cards import rederive
from owl3.cards.chain import Link
from owl3.cards.findings import Check, Findings, failed
from owl3.cards.tables import is_table
from owl3.errors import Interrupted, Owl3Error
from owl3.manifest import read_manifest
from owl3.progress import Progress

_PATIENCE_S = 3.0
"""How long an audit derives in one process before it starts others: about what their imports take."""


@dataclass(frozen=True, slots=True)
class _Job:
    """One shard to derive.

    Attributes:
        digest: Of the artifact.
        counted: Whether its samples' tokens can be counted again.
        target: Where the derived rows are written.
    """

    folder: Path
    kind: str
    digest: str
    shard: str
    workspace: Path
    counted: bool
    sample: float | None
    seed: int
    target: Path


@dataclass(frozen=True, slots=True)
class _Done:
    """What came of it."""

    problems: list[Check]
    num_rows: int
    num_read: int
    num_bytes: int
    written: bool


class Derivation:
    """Derives shard by shard. Use it as a context.

    Attributes:
        files: Tables of derived rows by kind and name of the artifact.
        num_rows: Derived rows,
        num_read: those of them whose bytes were read, and
        num_bytes: how many bytes that were.
    """

    def __init__(self, scratch: Path, workspace: Path, sample: float | None, seed: int, processes: int | None) -> None:
        self.scratch = scratch
        self.workspace = workspace
        self.sample = sample
        self.seed = seed
        self.files: dict[tuple[str, str], list[Path]] = {}
        self.num_rows = 0
        self.num_read = 0
        self.num_bytes = 0
        self._processes = processes or len(os.sched_getaffinity(0))
        self._alone_until = time.monotonic() + (_PATIENCE_S if processes is None else 0.0)
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Derivation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def derive(self, link: Link, findings: Findings, progress: Progress) -> None:
        """Derive one artifact's rows and add what differs from its tables."""
        assert link.manifest is not None and link.folder is not None
        kind, name = link.stated.kind, link.stated.name
        if kind not in ("shards", "samples"):
            return
        shards = sorted(Path(entry.path).stem for entry in link.manifest.files if is_table(entry.path))
        progress.start(f"audit {kind} {name}", total=len(shards))
        problems: list[Check] = []
        counted = kind == "samples"
        try:
            if counted:
                rederive.TokenCounter.of(link.manifest, self.workspace)
        except Owl3Error as error:
            problems.append(failed("rows", f"{kind} {name} tokens", "countable", str(error)))
            counted = False
        target = self.scratch / kind / name
        target.mkdir(parents=True, exist_ok=True)
        jobs = [
            _Job(
                folder=link.folder,
                kind=kind,
                digest=link.manifest.digest,
                shard=shard,
                workspace=self.workspace,
                counted=counted,
                sample=self.sample,
                seed=self.seed,
                target=target / f"{shard}.parquet",
            )
            for shard in shards
        ]
        for job, done in zip(jobs, self._run(jobs), strict=True):
            problems += done.problems
            self.num_rows += done.num_rows
            self.num_read += done.num_read
            self.num_bytes += done.num_bytes
            if done.written:
                self.files.setdefault((kind, name), []).append(job.target)
            progress.advance()
        findings.summarise("rows", f"{kind} {name}", problems, f"{len(shards)} shards")
        progress.finish(f"{len(problems)} differences")

    def _run(self, jobs: Sequence[_Job]) -> Iterator[_Done]:
        """Derive in order, by all processes from the moment on that it takes long."""
        for number, job in enumerate(jobs):
            if self._processes > 1 and len(jobs) - number > 1 and time.monotonic() >= self._alone_until:
                try:
                    yield from self._workers().map(_derive, jobs[number:])
                except BrokenProcessPool as error:
                    raise Interrupted("a worker process of the audit ended; run it again") from error
                return
            yield _derive(job)

    def _workers(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(self._processes, get_context("spawn"), initializer=_start_worker)
        return self._pool


def _start_worker() -> None:
    lifeline.end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides


@lru_cache(maxsize=4)
def _counter(folder: Path, digest: str, workspace: Path) -> rederive.TokenCounter | None:
    """The counter of an artifact; `digest` tells one version of it from another."""
    return rederive.TokenCounter.of(read_manifest(folder), workspace)


def _derive(job: _Job) -> _Done:
    only = _chosen(job)
    if job.kind == "shards":
        derived = rederive.shard(job.folder, job.shard, only)
    else:
        counter = _counter(job.folder, job.digest, job.workspace) if job.counted else None
        derived = rederive.samples(job.folder, job.shard, job.workspace, counter, only)
    read = sum(row.get("decision") == "kept" for row in derived.rows) if only is None else len(only)
    table = job.folder / f"{job.shard}.parquet"
    if table.is_file():
        pq.write_table(pa.Table.from_pylist(derived.rows, schema=pq.read_schema(table)), job.target)
    return _Done(derived.problems, len(derived.rows), read, derived.num_bytes, table.is_file())


def _chosen(job: _Job) -> frozenset[str] | None:
    """A random part of the kept keys, the same for the same seed."""
    if job.sample is None:
        return None
    try:
        rows = pq.read_table(job.folder / f"{job.shard}.parquet", columns=["key", "decision"]).to_pylist()
    except (OSError, pa.ArrowException):
        return frozenset()
    limit = int(job.sample * 2**64)
    return frozenset(row["key"] for row in rows if row["decision"] == "kept" and _draw(job.seed, row["key"]) < limit)


def _draw(seed: int, key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}:{key}".encode()).digest()[:8], "big")
