"""`owl3 retract`: take it out.

First what would be hit, in full: shards, built samples (also those where one of eight pictures is hit), plans and
checkpoints with the first tainted step, evaluations, cards. Then tombstones, which curation, building and loading
honour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from owl3.cards import runs, trace
from owl3.errors import InputError
from owl3.ledger import TOMBSTONES, connect, tombstones_path
from owl3.manifest import now
from owl3.shards import write_table


@dataclass(frozen=True)
class Impact:
    """What a retraction hits.

    Attributes:
        ids: Sample ids to bury: those asked for, and everything built from them.
        matched: (what, value) by sample id.
        missing: Subjects that nothing in the ledger matches.
    """

    ids: tuple[str, ...]
    matched: dict[str, tuple[str, str]]
    missing: tuple[trace.Subject, ...]
    artifacts: tuple[dict[str, object], ...]
    urls_kept: int
    built: int
    plans: tuple[trace.PlanHit, ...]
    checkpoints: tuple[runs.Tainted, ...]
    evaluations: tuple[runs.Evaluation, ...] = ()
    cards: tuple[dict[str, str], ...] = ()
    already: int = 0
    warnings: tuple[str, ...] = field(default=())

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to bury."""
        return not self.ids


def assess(workspace: Path, subjects: Sequence[trace.Subject], datacards_dir: Path | None = None) -> Impact:
    """Find all that the subjects hit, and write nothing.

    Raises:
        InputError: no subject was given.
    """
    if not subjects:
        raise InputError(
            "nothing to retract: give --url, --domain, --licence, --sha256, --sample-id, --image or --list"
        )
    with connect(workspace) as db:
        matched, answered = _match(db, subjects)
        missing = tuple(subject for subject in subjects if subject.text not in answered)
        return _impact(workspace, db, matched, missing, datacards_dir)


_JOINED = {"url": ("url", "canonical_url"), "sha256": ("sha256", "media_sha256"), "sample_id": ("sample_id",)}
"""Subjects that a table can be joined with, however many there are, and by which columns."""


def _match(db: trace.Connection, subjects: Sequence[trace.Subject]) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """Ids that the subjects mean and all that was built from them, each with a subject; and which subjects hit any."""
    views = trace.views_of(db)
    db.execute("create or replace temp table hits (sample_id varchar primary key, is_built boolean)")
    db.execute("create or replace temp table matched (sample_id varchar primary key, what varchar, text varchar)")
    db.execute("create or replace temp table pairs (sample_id varchar, what varchar, text varchar)")
    joined = [subject for subject in subjects if subject.what in _JOINED]
    asked = [(subject.what, subject.text, value) for subject in joined for value in dict.fromkeys(subject.values)]
    whats, texts, values = (list(column) for column in zip(*asked, strict=True)) if asked else ([], [], [])
    db.register("asked", pa.table({"what": whats, "text": texts, "value": values}, schema=_ASKED))
    for view in sorted(views & {"shard_rows", "sample_rows"}):
        present = {row[0] for row in db.execute(f"describe {view}").fetchall()}
        for what, columns in _JOINED.items():
            usable = [name for name in columns if name in present and (view == "shard_rows" or what == "sample_id")]
            for column in usable if what in whats else ():
                db.execute(
                    f"insert into pairs select distinct r.sample_id, a.what, a.text from {view} r "
                    f"join asked a on r.{column} = a.value where a.what = '{what}'"
                )
    for subject in (s for s in subjects if s.what not in _JOINED):
        trace.collect_hits(db, views, subject)
        db.execute("insert into pairs select sample_id, ?, ? from hits", [subject.what, subject.text])
    db.execute("insert into matched select sample_id, min(what), min(text) from pairs group by sample_id")
    answered = {str(row[0]) for row in db.execute("select distinct text from pairs").fetchall()}
    while "sample_rows" in views:
        before = db.execute("select count(*) from matched").fetchall()
        db.execute(
            "insert or ignore into matched select s.sample_id, any_value(m.what), min(m.text) from "
            "(select sample_id, unnest(parents) as parent from sample_rows) s join matched m on s.parent = m.sample_id "
            "group by s.sample_id"
        )
        if db.execute("select count(*) from matched").fetchall() == before:
            break
    rows = db.execute("select sample_id, what, text from matched").fetchall()
    return {str(sample_id): (str(what), str(text)) for sample_id, what, text in rows}, answered


_ASKED = pa.schema([("what", pa.string()), ("text", pa.string()), ("value", pa.string())])


def _impact(
    workspace: Path,
    db: trace.Connection,
    matched: dict[str, tuple[str, str]],
    missing: tuple[trace.Subject, ...],
    datacards_dir: Path | None,
) -> Impact:
    views = trace.views_of(db)
    ids = pa.array(sorted(matched), pa.string())
    db.execute("create or replace temp table hits (sample_id varchar primary key, is_built boolean)")
    db.register("named", pa.table({"sample_id": ids}))
    built = "exists (from sample_rows s where s.sample_id = named.sample_id)" if "sample_rows" in views else "false"
    db.execute(f"insert into hits select sample_id, {built} from named")
    db.unregister("named")
    found = trace.Trace(trace.Subject("sample_id", "", ()))
    trace.fill_rows(db, views, found)
    plans = trace.plan_hits(workspace, ids)
    checkpoints = runs.tainted(workspace, {hit.plan: hit.steps for hit in plans})
    return Impact(
        ids=tuple(sorted(matched)),
        matched=matched,
        missing=missing,
        artifacts=tuple(found.artifacts),
        urls_kept=found.urls_kept,
        built=found.built_total,
        plans=tuple(plans),
        checkpoints=tuple(checkpoints),
        evaluations=tuple(runs.evaluations(workspace, checkpoints)),
        cards=tuple(runs.cards_about(datacards_dir, [(str(a["kind"]), str(a["name"])) for a in found.artifacts])),
        already=found.tombstoned,
    )


def bury(workspace: Path, impact: Impact, reason: str) -> int:
    """Append tombstones for every id of an impact that has none; return how many are new.

    Raises:
        InputError: without a reason: a tombstone says why.
    """
    if not reason.strip():
        raise InputError("a tombstone says why: give --reason")
    path = tombstones_path(workspace)
    with FileLock(workspace / ".tombstones.lock"):
        before = read_tombstones(workspace)
        known = set(before["sample_id"].to_pylist())
        time = now()
        rows = [
            {"sample_id": key, "matched_by": what, "matched_value": value, "reason": reason, "time": time}
            for key, (what, value) in sorted(impact.matched.items())
            if key not in known
        ]
        if rows:
            write_table(path, pa.concat_tables([before, pa.Table.from_pylist(rows, schema=TOMBSTONES)]))
    return len(rows)


def read_tombstones(workspace: Path) -> pa.Table:
    """All tombstones of a workspace; an empty table when nothing was ever retracted."""
    path = tombstones_path(workspace)
    return pq.read_table(path, schema=TOMBSTONES) if path.is_file() else TOMBSTONES.empty_table()


def read_list(path: Path) -> list[trace.Subject]:
    """Subjects of a removal list: one URL, domain, sha256 or sample id per line; `#` begins a comment.

    Raises:
        InputError: the file is missing, or a line is none of these.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such removal list")
    subjects = []
    for number, raw in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = raw.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        subject = trace.understand(line)
        if subject.what in ("licence", "checkpoint", "image"):
            raise InputError(f"{path}:{number}: {line!r} is no URL, domain, sha256 or sample id")
        subjects.append(subject)
    return subjects
