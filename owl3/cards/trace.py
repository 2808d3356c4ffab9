"""`owl3 trace X`: where it came from and where it went.

X may be a URL, a domain, a licence, the sha256 of a picture, a picture file, a sample id, a step, or a checkpoint. All
of it is a look-up: in the ledger's tables for sources, shards and built samples; in the plans for steps; in the runs
for checkpoints and evaluations. Nothing was logged for it.

A checkpoint written after S steps has learned from the steps 0 … S - 1 of its stage and from everything its parent
stage learned from.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from owl3.cards import runs
from owl3.cards.index import stated_digest
from owl3.cards.lookup import Lookup
from owl3.cards.subjects import Subject
from owl3.planfile import Plan, PlannedDataset, iter_plans
from owl3.sampleindex import index_folder, kept_rows

MAX_ROWS = 50
"""Rows listed per table; the amounts beside them are exact."""

_URL_COLUMNS = (
    "sample_id, url, domain, caption, licence, source, decision, reason, artifact, shard, key, sha256, "
    "media_sha256, extension, media_offset, media_bytes, src_nsfw"
)
_BUILT_COLUMNS = "sample_id, kind, builder, licence, decision, reason, artifact, shard, key, parents, images"


@dataclass
class PlanHit:
    """Steps of one plan that hold any of the samples."""

    plan: str
    digest: str
    num_steps: int
    draws: int
    steps: list[int]
    sample_ids: list[str] = field(default_factory=list)

    @property
    def first(self) -> int:
        """The first step that holds any."""
        return self.steps[0]

    @property
    def last(self) -> int:
        """The last one."""
        return self.steps[-1]


@dataclass
class Trace:
    """All that X touched. `*_total` count; the lists hold the first `MAX_ROWS`."""

    subject: Subject
    urls: list[dict[str, Any]] = field(default_factory=list)
    urls_total: int = 0
    urls_kept: int = 0
    built: list[dict[str, Any]] = field(default_factory=list)
    built_total: int = 0
    plans: list[PlanHit] = field(default_factory=list)
    checkpoints: list[runs.Tainted] = field(default_factory=list)
    evaluations: list[runs.Evaluation] = field(default_factory=list)
    cards: list[dict[str, str]] = field(default_factory=list)
    tombstoned: int = 0
    artifacts: list[dict[str, Any]] = field(default_factory=list)

    @property
    def found(self) -> bool:
        """Whether anything in the workspace holds it: dropped rows and tombstones alone are no trace in the data."""
        return bool(self.urls_kept or self.built_total or self.plans or self.checkpoints)


def trace(workspace: Path, subject: Subject, datacards_dir: Path | None = None) -> Trace:
    """Follow a subject back to its sources and forward to checkpoints, evaluations and cards.

    Raises:
        InputError: there is no workspace, or the checkpoint asked for does not exist.
    """
    if subject.what in ("checkpoint", "step"):
        from owl3.cards.backwards import trace_checkpoint, trace_step

        follow = trace_checkpoint if subject.what == "checkpoint" else trace_step
        return follow(workspace, subject, datacards_dir)
    with Lookup(workspace) as ledger:
        ledger.find([subject])
        found = Trace(subject)
        fill_rows(ledger, found)
        found.plans = plan_hits(ledger)
    found.checkpoints = runs.tainted(workspace, {hit.plan: hit.steps for hit in found.plans})
    found.evaluations = runs.evaluations(workspace, found.checkpoints)
    found.cards = runs.cards_about(datacards_dir, [(a["kind"], a["name"]) for a in found.artifacts])
    return found


def fill_rows(ledger: Lookup, found: Trace) -> None:
    """List and count what was found."""
    found.urls_total = ledger.one("select count(*) from places where kind = 'shards'")
    found.urls_kept = ledger.one("select count(*) from places where kind = 'shards' and kept")
    found.built_total = ledger.one("select count(*) from places where kind = 'samples' and kept")
    found.urls = ledger.rows("shards", _URL_COLUMNS.split(", "), MAX_ROWS)
    found.built = ledger.rows("samples", _BUILT_COLUMNS.split(", "), MAX_ROWS)
    found.artifacts = ledger.artifacts("shards") + ledger.artifacts("samples", "kept")
    found.tombstoned = ledger.tombstoned()


def plan_hits(ledger: Lookup) -> list[PlanHit]:
    """Steps of every plan that hold any of the samples that were found."""
    ids = ledger.ids()
    if not len(ids):
        return []
    found = []
    for plan in iter_plans(ledger.workspace):
        positions, held = _positions(ledger, plan, ids)
        draws = plan.draws_of(positions)
        if len(draws):
            steps = np.unique(draws // plan.global_batch_size).tolist()
            name = "/".join(plan.folder.parts[-2:])
            found.append(PlanHit(name, plan.digest, plan.num_steps, len(draws), steps, held))
    return found


def _positions(ledger: Lookup, plan: Plan, ids: pa.Array) -> tuple[list[int], list[str]]:
    """Positions of the samples in a plan, and the ids of the first ones."""
    positions: list[int] = []
    held: list[str] = []
    for dataset in plan.header.datasets:
        if stated_digest(ledger.workspace / "samples" / dataset.name) == dataset.digest:
            shards, numbers, names = ledger.positions(dataset.name)
        else:
            shards, numbers, names = _retired(ledger.workspace, dataset, ids)
        firsts = {int(shard.name): dataset.offset + shard.first for shard in dataset.shards}
        positions += [firsts[shard] + number for shard, number in zip(shards, numbers, strict=True)]
        held += names[:MAX_ROWS]
    return positions, held


def _retired(workspace: Path, dataset: PlannedDataset, ids: pa.Array) -> tuple[list[int], list[int], list[str]]:
    """The same for samples that a purge made anew since: by the ids that it kept."""
    shards: list[int] = []
    numbers: list[int] = []
    names: list[str] = []
    folder = index_folder(workspace, dataset.name, dataset.digest)
    for shard in dataset.shards:
        column = kept_rows(folder / f"{shard.name}.parquet", ["sample_id"])["sample_id"]
        found = np.flatnonzero(pc.is_in(column, value_set=ids).to_numpy())
        shards += [int(shard.name)] * len(found)
        numbers += found.tolist()
        names += column.take(pa.array(found)).to_pylist()
    return shards, numbers, names
