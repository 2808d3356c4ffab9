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
from filelock import FileLock

from owl3.cards import runs, trace
from owl3.cards.lookup import Lookup
from owl3.cards.subjects import Subject, understand
from owl3.errors import InputError
from owl3.ledger import TOMBSTONES, read_tombstones, tombstones_path
from owl3.manifest import now
from owl3.shards import write_table


@dataclass(frozen=True)
class Impact:
    """What a retraction hits.

    Attributes:
        ids: Sample ids to bury: those asked for, and everything built from them.
        matched: (what, value) by sample id.
        missing: Subjects that nothing in the ledger matches.
        warnings: What is not hit, though whoever asks may mean it too.
    """

    ids: tuple[str, ...]
    matched: dict[str, tuple[str, str]]
    missing: tuple[Subject, ...]
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


def assess(workspace: Path, subjects: Sequence[Subject], datacards_dir: Path | None = None) -> Impact:
    """Find all that the subjects hit, and write nothing.

    Raises:
        InputError: no subject was given.
    """
    if not subjects:
        raise InputError(
            "nothing to retract: give --url, --domain, --licence, --sha256, --sample-id, --image or --list"
        )
    with Lookup(workspace) as ledger:
        answered = ledger.find(subjects)
        found = trace.Trace(Subject("sample_id", "", ()))
        trace.fill_rows(ledger, found)
        plans = trace.plan_hits(ledger)
        rows = ledger.db.execute("select sample_id, what, text from hits order by sample_id").fetchall()
    checkpoints = runs.tainted(workspace, {hit.plan: hit.steps for hit in plans})
    ids = tuple(str(row[0]) for row in rows)
    return Impact(
        ids=ids,
        matched={str(sample_id): (str(what), str(text)) for sample_id, what, text in rows},
        missing=tuple(subject for subject in subjects if subject.text not in answered),
        artifacts=tuple(found.artifacts),
        urls_kept=found.urls_kept,
        built=found.built_total,
        plans=tuple(plans),
        checkpoints=tuple(checkpoints),
        evaluations=tuple(runs.evaluations(workspace, checkpoints)),
        cards=tuple(runs.cards_about(datacards_dir, [(str(a["kind"]), str(a["name"])) for a in found.artifacts])),
        already=found.tombstoned,
        warnings=_twins(workspace, found, frozenset(ids)),
    )


def _twins(workspace: Path, found: trace.Trace, ids: frozenset[str]) -> tuple[str, ...]:
    """Say that the same pictures are kept under other URLs too, as far as the first hits show it."""
    hashes = sorted({str(row["media_sha256"]) for row in found.urls if row.get("media_sha256")})
    if not hashes:
        return ()
    with Lookup(workspace) as ledger:
        ledger.find([Subject("sha256", digest, (digest,)) for digest in hashes])
        rows = ledger.rows("shards", ["sample_id", "url", "decision"], trace.MAX_ROWS)
    urls = sorted(str(row["url"]) for row in rows if row["decision"] == "kept" and row["sample_id"] not in ids)
    if not urls:
        return ()
    return (f"the same picture is kept under {len(urls)} more URLs ({urls[0]}); --sha256 takes it out wherever it is",)


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


def read_list(path: Path) -> list[Subject]:
    """Subjects of a removal list: one URL, domain, sha256 or sample id per line; `#` begins a comment.

    Raises:
        InputError: the file is missing or no text, or a line is none of these.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such removal list")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 ({error}); save it as such") from error
    subjects = []
    for number, raw in enumerate(lines, start=1):
        line = raw.split(" #")[0].strip()
        if not line or line.startswith("#"):
            continue
        try:
            subject = understand(line)
        except InputError as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if subject.what in ("licence", "step", "checkpoint", "image"):
            raise InputError(f"{path}:{number}: {line!r} is no URL, domain, sha256 or sample id")
        subjects.append(subject)
    return subjects
