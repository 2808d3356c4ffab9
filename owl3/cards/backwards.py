"""From a checkpoint or a step back to its sources: what did these weights learn from?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from owl3.cards import runs
from owl3.cards.subjects import STEP_PATTERN, Subject
from owl3.cards.tables import records, views_of
from owl3.cards.trace import MAX_ROWS, PlanHit, Trace
from owl3.errors import InputError
from owl3.ledger import connect
from owl3.manifest import MANIFEST_NAME
from owl3.planfile import Plan
from owl3.sampleindex import index_folder, kept_rows


def trace_checkpoint(workspace: Path, subject: Subject, datacards_dir: Path | None) -> Trace:
    """Collect every sample that a checkpoint's stage, and the stages before it, had seen.

    Raises:
        InputError: there is no such checkpoint.
    """
    run, step = runs.find_checkpoint(workspace, subject.text)
    found = Trace(subject)
    with connect(workspace, views=("shard_rows", "sample_rows")) as db:
        db.execute("create or replace temp table hits (sample_id varchar primary key, is_built boolean)")
        _collect(workspace, run, step, db, found)
        views = views_of(db)
        _add_ancestors(db, views)
        _fill(db, views, found)
    found.evaluations = runs.evaluations(workspace, found.checkpoints[:1])
    found.cards = runs.cards_about(datacards_dir, [(a["kind"], a["name"]) for a in found.artifacts])
    return found


def trace_step(workspace: Path, subject: Subject, datacards_dir: Path | None) -> Trace:
    """Collect the samples of one step, their sources, and the checkpoints that learned from that step.

    Raises:
        InputError: there is no such plan or step.
    """
    match = STEP_PATTERN.fullmatch(subject.text)
    if match is None:
        raise InputError(f"{subject.text!r}: write a step as RUN/STAGE:STEP, for example demo/sft:3")
    name, step = match[1], int(match[2])
    plan = Plan.open(workspace / "plans" / name)
    positions = np.unique([plan.base_of(position) for position in plan.positions(step).tolist()])
    ids = ids_at(workspace, plan, positions)
    hit = PlanHit(name, plan.digest, plan.num_steps, plan.global_batch_size, [step], ids[:MAX_ROWS])
    found = Trace(subject, plans=[hit])
    with connect(workspace, views=("shard_rows", "sample_rows")) as db:
        db.execute("create or replace temp table hits (sample_id varchar primary key, is_built boolean)")
        _hit(db, ids)
        views = views_of(db)
        _add_ancestors(db, views)
        _fill(db, views, found)
    found.checkpoints = runs.tainted(workspace, {name: [step]})
    found.evaluations = runs.evaluations(workspace, found.checkpoints)
    found.cards = runs.cards_about(datacards_dir, [(a["kind"], a["name"]) for a in found.artifacts])
    return found


def _hit(db: duckdb.DuckDBPyConnection, ids: list[str]) -> None:
    db.register("seen", pa.table({"sample_id": ids}))
    db.execute("insert or ignore into hits select distinct sample_id, true from seen")
    db.unregister("seen")


def _collect(workspace: Path, run: runs.Run, step: int, db: duckdb.DuckDBPyConnection, found: Trace) -> None:
    """Put the ids of all that was seen into `hits`, stage by stage back to the first."""
    current: runs.Run | None = run
    inherited = ""
    while current is not None:
        steps = step if current is run else current.steps
        hit = _seen(workspace, current, steps, db)
        if hit is not None:
            found.plans.append(hit)
        checkpoint = runs.Checkpoint(current.name, steps, "", False)
        found.checkpoints.append(runs.Tainted(checkpoint, 0, steps - 1, steps, inherited))
        inherited = current.name
        current = runs.read_run(workspace, workspace / "runs" / current.parent) if current.parent else None


def _seen(workspace: Path, run: runs.Run, steps: int, db: duckdb.DuckDBPyConnection) -> PlanHit | None:
    folder = workspace / "plans" / run.name
    if not (folder / MANIFEST_NAME).is_file():
        return None
    plan = Plan.open(folder)
    positions = plan.seen_before(steps)
    ids = ids_at(workspace, plan, positions)
    _hit(db, ids)
    name = "/".join(plan.folder.parts[-2:])
    return PlanHit(
        name, plan.digest, plan.num_steps, steps * plan.global_batch_size, list(range(steps)), ids[:MAX_ROWS]
    )


def ids_at(workspace: Path, plan: Plan, positions: np.ndarray) -> list[str]:
    """Sample ids at rising positions of a plan, shard by shard."""
    ids: list[str] = []
    for dataset in plan.header.datasets:
        firsts = [shard.first for shard in dataset.shards] + [dataset.num_samples]
        for shard, end in zip(dataset.shards, firsts[1:], strict=True):
            low, high = dataset.offset + shard.first, dataset.offset + end
            local = positions[(positions >= low) & (positions < high)] - low
            if len(local):
                folder = index_folder(workspace, dataset.name, dataset.digest)
                column = kept_rows(folder / f"{shard.name}.parquet", ["sample_id"])
                ids += column["sample_id"].take(pa.array(local)).to_pylist()
    return ids


def _add_ancestors(db: duckdb.DuckDBPyConnection, views: set[str]) -> None:
    """Add the parents of what was seen, to the rows of URLs."""
    if "sample_rows" not in views:
        return
    while True:
        before = db.execute("select count(*) from hits").fetchone()
        db.execute(
            "insert or ignore into hits select distinct parent, exists (from sample_rows s where s.sample_id = parent) "
            "from (select unnest(parents) as parent from sample_rows semi join hits using (sample_id))"
        )
        if db.execute("select count(*) from hits").fetchone() == before:
            return


def _artifacts(db: duckdb.DuckDBPyConnection, kind: str, rows: str) -> list[dict[str, Any]]:
    """Artifacts that hold hits, with the shards of each."""
    query = f"select artifact as name, count(*) as amount, list_sort(list(distinct shard)) as shards {rows}"
    return [{"kind": kind, **row} for row in records(db, f"{query} group by artifact order by artifact")]


def _fill(db: duckdb.DuckDBPyConnection, views: set[str], found: Trace) -> None:
    if "sample_rows" in views:
        kept = "from sample_rows semi join hits using (sample_id) where decision = 'kept'"
        found.built_total = records(db, f"select count(*) as n {kept}")[0]["n"]
        found.artifacts += _artifacts(db, "samples", kept)
    if "shard_rows" in views:
        rows = "from shard_rows semi join hits using (sample_id) where decision = 'kept'"
        found.urls_total = found.urls_kept = records(db, f"select count(*) as n {rows}")[0]["n"]
        found.urls = records(
            db,
            f"select domain, licence, source, artifact, count(*) as amount {rows} "
            f"group by all order by amount desc, domain, licence, source, artifact limit {MAX_ROWS}",
        )
        found.artifacts += _artifacts(db, "shards", rows)
