"""`owl3 trace X`: where it came from and where it went.

X may be a URL, a domain, a licence, the sha256 of a picture, a picture file, a sample id, or a checkpoint. All of it is
a look-up: in the ledger's tables for sources, shards and built samples; in the plans for steps; in the runs for
checkpoints and evaluations. Nothing was logged for it.

A checkpoint written after S steps has learned from the steps 0 … S - 1 of its stage and from everything its parent
stage learned from.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import duckdb
import numpy as np
import pyarrow as pa

from owl3.cards import runs
from owl3.errors import InputError
from owl3.ledger import connect
from owl3.media import open_header, perceptual_hash
from owl3.planfile import Plan, index_folder, iter_plans, kept_rows
from owl3.samples import canonical_url
from owl3.storage import sha256_of

Connection: TypeAlias = duckdb.DuckDBPyConnection
What = Literal["url", "domain", "licence", "sha256", "sample_id", "image", "checkpoint"]

MAX_ROWS = 50
"""Rows listed per table; the amounts beside them are exact."""

MAX_PHASH_BITS = 6
"""Perceptual hashes of 64 bits that differ in no more bits show the same picture (re-encoded, scaled)."""

_URL_COLUMNS = "sample_id, url, domain, caption, licence, source, decision, reason, artifact, shard, key, sha256"
_BUILT_COLUMNS = "sample_id, kind, builder, licence, decision, reason, artifact, shard, key, parents, images"


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked about: `values` are the ways it may stand in a table."""

    what: What
    text: str
    values: tuple[str, ...]


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


def understand(text: str, what: What | None = None) -> Subject:
    """Say what a person means by `text`; `what` settles it where the guess would be wrong.

    Raises:
        InputError: when it looks like nothing that can be traced.
    """
    kind = what or _guess(text)
    if kind == "url":
        return Subject("url", text, (text, canonical_url(text)))
    if kind == "domain":
        return Subject("domain", text, (text.lower(),))
    if kind == "image":
        path = Path(text)
        if not path.is_file():
            raise InputError(f"{path}: no such picture file")
        data = path.read_bytes()
        return Subject("image", text, (sha256_of(path), perceptual_hash(open_header(data).convert("L"))))
    if kind in ("sha256", "sample_id"):
        return Subject(kind, text, (text.lower(),))
    if kind in get_args(What):
        return Subject(kind, text, (text,))
    raise InputError(f"{text!r}: choose --as from {', '.join(get_args(What))}")


def _guess(text: str) -> What:
    if "://" in text:
        return "url"
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return "sha256"
    if re.fullmatch(r"[0-9a-fA-F]{32}", text):
        return "sample_id"
    if runs.CHECKPOINT_PATTERN.search(text):
        return "checkpoint"
    if Path(text).is_file():
        return "image"
    if re.fullmatch(r"(?:[\w-]+\.)+[a-zA-Z][\w-]+", text):
        return "domain"
    return "licence"


def trace(workspace: Path, subject: Subject, datacards_dir: Path | None = None) -> Trace:
    """Follow a subject back to its sources and forward to checkpoints, evaluations and cards.

    Raises:
        InputError: there is no workspace, or the checkpoint asked for does not exist.
    """
    with connect(workspace) as db:
        views = views_of(db)
        if subject.what == "checkpoint":
            from owl3.cards.backwards import trace_checkpoint

            return trace_checkpoint(workspace, subject, db, views, datacards_dir)
        found = Trace(subject)
        collect_hits(db, views, subject)
        fill_rows(db, views, found)
        found.plans = plan_hits(workspace, hit_ids(db))
        found.checkpoints = runs.tainted(workspace, {hit.plan: hit.steps for hit in found.plans})
        found.evaluations = runs.evaluations(workspace, found.checkpoints)
        found.cards = runs.cards_about(datacards_dir, [(a["kind"], a["name"]) for a in found.artifacts])
        return found


def views_of(db: Connection) -> set[str]:
    """Which of the ledger's views the workspace has."""
    return {row[0] for row in db.execute("select view_name from duckdb_views() where not internal").fetchall()}


def collect_hits(db: Connection, views: set[str], subject: Subject) -> None:
    """Fill the table `hits` (sample_id, is_built) with what the subject means and all that was built from it."""
    db.execute("create or replace temp table hits (sample_id varchar primary key, is_built boolean)")
    if "shard_rows" in views:
        condition, values = _condition(subject, _columns(db, "shard_rows"))
        db.execute(
            f"insert or ignore into hits select distinct sample_id, false from shard_rows where {condition}", values
        )
    elif "source_rows" in views and subject.what in ("url", "sample_id"):
        condition, values = _condition(subject, _columns(db, "source_rows"))
        db.execute(
            f"insert or ignore into hits select distinct sample_id, false from source_rows where {condition}", values
        )
    if "sample_rows" not in views:
        return
    if subject.what == "sample_id":
        db.execute(
            "insert or ignore into hits select distinct sample_id, true from sample_rows where sample_id = ?",
            subject.values,
        )
    add_descendants(db)


def add_descendants(db: Connection) -> None:
    """Add every built sample with a hit among its parents, and those built from these, to the end."""
    while True:
        before = _one(db, "select count(*) from hits")
        db.execute(
            "insert or ignore into hits select distinct s.sample_id, true from "
            "(select sample_id, unnest(parents) as parent from sample_rows) s "
            "semi join hits h on s.parent = h.sample_id"
        )
        if _one(db, "select count(*) from hits") == before:
            return


def hit_ids(db: Connection) -> pa.Array:
    """Ids of all hits."""
    rows = db.execute("select sample_id from hits order by sample_id").fetchall()
    return pa.array([row[0] for row in rows], pa.string())


def _condition(subject: Subject, columns: set[str]) -> tuple[str, list[str]]:
    """A condition on the table of URLs."""
    values = list(subject.values)
    if subject.what == "url":
        either = "url in (?, ?)" + (" or canonical_url in (?, ?)" if "canonical_url" in columns else "")
        return f"({either})", values * either.count("in (?")
    if subject.what == "domain":
        return "(domain = ? or suffix(domain, '.' || ?))", values * 2
    if subject.what == "sha256":
        names = [name for name in ("sha256", "media_sha256") if name in columns]
        return "(" + " or ".join(f"{name} = ?" for name in names) + ")", values * len(names)
    if subject.what == "image":
        exact, perceptual = values
        near = (
            f" or bit_count(xor(('0x' || phash)::ubigint, ('0x' || ?)::ubigint)) <= {MAX_PHASH_BITS}"
            if "phash" in columns
            else ""
        )
        return f"(sha256 = ? or media_sha256 = ?{near})", [exact, exact, *([perceptual] if near else [])]
    return f"{subject.what} = ?", values


def _columns(db: Connection, view: str) -> set[str]:
    return {row[0] for row in db.execute(f"describe {view}").fetchall()}


def _one(db: Connection, query: str) -> int:
    row = db.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def fill_rows(db: Connection, views: set[str], found: Trace) -> None:
    """List and count what stands in `hits`."""
    if "shard_rows" in views:
        rows = "from shard_rows semi join hits using (sample_id)"
        found.urls_total = _one(db, f"select count(*) {rows}")
        found.urls_kept = _one(db, f"select count(*) {rows} where decision = 'kept'")
        columns = ", ".join(name for name in _URL_COLUMNS.split(", ") if name in _columns(db, "shard_rows"))
        found.urls = records(
            db, f"select {columns} {rows} order by decision desc, sample_id, artifact limit {MAX_ROWS}"
        )
        found.artifacts += list_artifacts(db, "shards", rows)
    if "sample_rows" in views:
        rows = "from sample_rows semi join (select sample_id from hits where is_built) using (sample_id)"
        rows += " where decision = 'kept'"
        found.built_total = _one(db, f"select count(*) {rows}")
        found.built = records(db, f"select {_BUILT_COLUMNS} {rows} order by artifact, sample_id limit {MAX_ROWS}")
        found.artifacts += list_artifacts(db, "samples", rows)
    if "tombstones" in views:
        found.tombstoned = _one(db, "select count(distinct sample_id) from tombstones semi join hits using (sample_id)")


def list_artifacts(db: Connection, kind: str, rows: str) -> list[dict[str, Any]]:
    """Artifacts that hold hits, with the shards of each."""
    query = f"select artifact as name, count(*) as amount, list_sort(list(distinct shard)) as shards {rows}"
    return [{"kind": kind, **row} for row in records(db, f"{query} group by artifact order by artifact")]


def records(db: Connection, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Rows of a query as dictionaries."""
    cursor = db.execute(query, list(values))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def plan_hits(workspace: Path, ids: pa.Array) -> list[PlanHit]:
    """Steps of every plan that hold any of the samples."""
    if not len(ids):
        return []
    found = []
    for plan in iter_plans(workspace):
        positions, held = _positions(workspace, plan, ids)
        if not positions:
            continue
        draws = np.flatnonzero(np.isin(plan.order, np.asarray(plan.with_parts(positions), dtype=plan.order.dtype)))
        steps = sorted({int(draw) // plan.global_batch_size for draw in draws})
        if steps:
            name = "/".join(plan.folder.parts[-2:])
            found.append(PlanHit(name, plan.digest, plan.num_steps, len(draws), steps, held))
    return found


def _positions(workspace: Path, plan: Plan, ids: pa.Array) -> tuple[list[int], list[str]]:
    positions: list[int] = []
    held: list[str] = []
    for dataset in plan.header.datasets:
        folder = index_folder(workspace, dataset)
        for shard in dataset.shards:
            path = folder / f"{shard.name}.parquet"
            column = kept_rows(path, ["sample_id"])["sample_id"]
            numbers = np.flatnonzero(pa.compute.is_in(column, value_set=ids).to_numpy())
            positions += [dataset.offset + shard.first + int(number) for number in numbers]
            held += [column[int(number)].as_py() for number in numbers[:MAX_ROWS]]
    return positions, held
