"""Derived rows of all artifacts of a card, as Parquet in a scratch folder where they are not as stated.

This process derives, and others beside it once it takes long; threads would not do, as each waits for the interpreter
after every picture that it hashed. What is found does not depend on how many there are.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.cards import rederive, rows
from owl3.cards.chain import Link
from owl3.cards.findings import Check, failed, passed
from owl3.errors import Interrupted, Owl3Error
from owl3.manifest import read_manifest
from owl3.progress import Progress
from owl3.shards import is_table
from owl3.stopping import WorkerPool

_PATIENCE_S = 1.0
"""How long an audit derives in one process before it starts others: about what their start takes."""

_LARGE_BYTES = 1 << 30
"""So many bytes take longer than that for certain: others are started at once."""


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
    """What came of it.

    Attributes:
        table: Where the derived rows are; None when the table could not be read.
        tar_sha256: Empty when the tar was not read from end to end.
    """

    problems: list[Check]
    num_rows: int
    num_read: int
    num_bytes: int
    table: Path | None
    tar_sha256: str


class Derivation:
    """Derives shard by shard. Use it as a context.

    Attributes:
        files: Tables of derived rows by kind and name of the artifact.
        tar_sha256: Hashes of the tars that were read, by kind and name of the artifact, then by file.
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
        self.tar_sha256: dict[tuple[str, str], dict[str, str]] = {}
        self.num_rows = 0
        self.num_read = 0
        self.num_bytes = 0
        self._processes = processes or len(os.sched_getaffinity(0))
        self._alone_until = time.monotonic() + (_PATIENCE_S if processes is None else 0.0)
        self._pool: WorkerPool | None = None

    def __enter__(self) -> Derivation:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def derive(self, link: Link, progress: Progress) -> list[Check]:
        """Derive one artifact's rows; returns what there is to say of them, nothing for an artifact without rows."""
        assert link.manifest is not None and link.folder is not None
        kind, name = link.stated.kind, link.stated.name
        if kind not in ("shards", "samples"):
            return []
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
        if self.sample is None and sum(e.bytes for e in link.manifest.files if e.path.endswith(".tar")) >= _LARGE_BYTES:
            self._alone_until = 0.0
        derived: dict[int, _Done] = {}
        for number, done in self._run(jobs):
            derived[number] = done
            progress.advance()
        for number, job in enumerate(jobs):
            done = derived[number]
            problems += done.problems
            self.num_rows += done.num_rows
            self.num_read += done.num_read
            self.num_bytes += done.num_bytes
            if done.table is not None:
                self.files.setdefault((kind, name), []).append(done.table)
            if done.tar_sha256:
                self.tar_sha256.setdefault((kind, name), {})[f"{job.shard}.tar"] = done.tar_sha256
        progress.finish(f"{len(problems)} differences")
        return problems or [passed("rows", f"{kind} {name}", f"{len(shards)} shards")]

    def _run(self, jobs: Sequence[_Job]) -> Iterator[tuple[int, _Done]]:
        """Derive; yields numbers of jobs with what came of them, as they get done."""
        for number, job in enumerate(jobs):
            if self._processes > 1 and len(jobs) - number > 1 and time.monotonic() >= self._alone_until:
                try:
                    yield from self._share_out(jobs, number)
                except BrokenProcessPool as error:
                    raise Interrupted("a worker process of the audit ended; run it again") from error
                return
            yield number, _derive(job)

    def _share_out(self, jobs: Sequence[_Job], first: int) -> Iterator[tuple[int, _Done]]:
        """The others take jobs from the front, this process from the end, until they meet."""
        waiting = deque((number, self._others().submit(_derive, jobs[number])) for number in range(first, len(jobs)))
        while waiting:
            if waiting[-1][1].cancel():  # nobody has begun it
                number, _ = waiting.pop()
                yield number, _derive(jobs[number])
            else:
                wait([waiting[0][1]])
            while waiting and waiting[0][1].done():
                number, future = waiting.popleft()
                yield number, future.result()

    def _others(self) -> WorkerPool:
        if self._pool is None:
            self._pool = WorkerPool(self._processes - 1)
        return self._pool


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
    table = derived.table
    if table is None and derived.schema is not None:
        table = job.target
        pq.write_table(rows.as_table(derived.rows, derived.schema), table)
    return _Done(
        problems=derived.problems,
        num_rows=derived.num_rows,
        num_read=derived.num_read,
        num_bytes=derived.num_bytes,
        table=table,
        tar_sha256=derived.tar_sha256,
    )


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
