"""How fast the ledger answers: trace, impact of a retraction, top domains, card; and a full audit against sha256 alone.

    owl3 bench ledger                                      10 M rows, minutes
    owl3 bench ledger rows=100_000_000 stage=write keep=true
    owl3 bench ledger rows=100_000_000 stage=ask           the size that the targets are stated for, in two sittings
    owl3 bench ledger stage=audit                          a full audit of shards alone

Every figure comes with the number of rows it was measured on; `ledger.md` beside it sets it against its target.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from owl3.bench.ledger_audit import audit_against_hashing, time_card
from owl3.bench.ledger_world import domain_of, sample_id_of, url_of, write_ledger
from owl3.cards import eu, retract, tables
from owl3.cards.index import build_indexes
from owl3.cards.subjects import Subject, understand
from owl3.cards.trace import trace
from owl3.errors import ConfigError
from owl3.storage import files_under

IDS = 10_000
AUDIT_SIDES = (256, 640)
"""Of the audited pictures, in pixels: as img2dataset resizes them, and as they are fetched."""

QUESTIONS = 5
"""Of each kind; the median is told, and the spread."""

KEPT_BYTES_PER_ROW, SPILLED_BYTES_PER_ROW = 270, 60
"""Ledger and index, and what sorting spills into the system's folder for such things, at its largest; measured."""

TARGETS: Mapping[str, tuple[float, str]] = {
    "trace_url_s": (2, "trace by URL"),
    "trace_domain_s": (10, "trace by domain"),
    "trace_largest_domain_s": (10, "trace by the largest domain"),
    "impact_s": (60, f"retraction impact of {IDS:,} ids"),
    "top_domains_s": (60, "top-domains table"),
    "card_s": (60, "card of a corpus, end to end"),
}

Stage = Literal["all", "write", "ask", "audit"]


def run(
    out_dir: Path,
    *,
    rows: int = 10_000_000,
    stage: Stage = "all",
    keep: bool = False,
    card_rows: int = 1_000_000,
    audit_gb: float = 8.0,
) -> dict[str, Any]:
    """Write a ledger of `rows` rows with its index, and ask it; render a card; audit a shard.

    Args:
        stage: `write` only writes and indexes, and goes on where a killed run stopped; `ask` takes what an earlier run
            kept; `audit` only audits shards.
        keep: Leave the ledger behind.
        audit_gb: How large the audited corpora are, of small pictures and of large ones.

    Raises:
        ConfigError: the disk is too small, or there is nothing to ask.
    """
    workspace, notes = out_dir / f"ledger-{rows}", out_dir / f"written-{rows}.json"
    out_dir.mkdir(parents=True, exist_ok=True)
    if stage == "audit":
        return {"audit": _audits(out_dir, audit_gb)}
    if stage != "ask":
        result = _write(workspace, rows)
        notes.write_text(json.dumps(result))
        if stage == "write":
            return result
    elif not notes.is_file():
        raise ConfigError(f"{workspace}: holds no finished ledger of {rows:,} rows; write it: stage=write keep=true")
    result = json.loads(notes.read_text()) | _ask(workspace, rows) | {"peak_gb": _peak_gb()}
    if not keep:
        shutil.rmtree(workspace)
        notes.unlink()
    result |= {"card_rows": card_rows, "card_s": time_card(out_dir / "card-bench", card_rows)}
    result["audit"] = _audits(out_dir, audit_gb)
    (out_dir / "ledger.md").write_text(as_table(result), encoding="utf-8")
    return result


def _audits(out_dir: Path, audit_gb: float) -> dict[int, Any]:
    _ensure_free(out_dir, int(audit_gb * 1.1e9), f"{audit_gb:g} GB of pictures to audit", "audit_gb=")
    return {side: audit_against_hashing(out_dir / "audit-bench", audit_gb * 1e9, side) for side in AUDIT_SIDES}


def _write(workspace: Path, rows: int) -> dict[str, Any]:
    for other in workspace.parent.glob("ledger-*"):
        if other.is_dir() and other != workspace:
            shutil.rmtree(other)
            (workspace.parent / f"written-{other.name.removeprefix('ledger-')}.json").unlink(missing_ok=True)
    before = _num_bytes(workspace)
    spills = Path(tempfile.gettempdir())
    here = spills.stat().st_dev == workspace.parent.stat().st_dev
    wanted = rows * (KEPT_BYTES_PER_ROW + SPILLED_BYTES_PER_ROW * here)
    _ensure_free(workspace.parent, wanted - before, f"{rows:,} rows with their index", "rows=")
    _ensure_free(spills, rows * SPILLED_BYTES_PER_ROW, f"what sorting {rows:,} rows spills", "rows=")
    written = timed(lambda: write_ledger(workspace, rows))
    ledger_bytes = _num_bytes(workspace) - _num_bytes(workspace / "index")
    indexed = timed(lambda: build_indexes(workspace))
    return {
        "rows": rows,
        "peak_of_writing_gb": _peak_gb(),
        "writing_s": written,
        "resumed_from_bytes": before,
        "ledger_bytes": ledger_bytes,
        "indexing_s": indexed,
        "index_bytes": _num_bytes(workspace / "index"),
    }


def _ensure_free(folder: Path, num_bytes: int, what: str, option: str) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise ConfigError(
            f"{folder}: {free / 1e9:.1f} GB are free, {what} take {num_bytes / 1e9:.1f} GB; give a smaller {option}, "
            "or another --out (and TMPDIR) with more room"
        )


def _ask(workspace: Path, rows: int) -> dict[str, Any]:
    numbers = [rows * (2 * k + 1) // (2 * QUESTIONS) for k in range(QUESTIONS)]
    urls = [understand(url_of(number)) for number in numbers]
    domains = [understand(domain_of(number + 1 + k)) for k, number in enumerate(numbers)]  # of as many sizes
    step = max(1, rows // IDS)
    ids = [Subject("sample_id", i, (i,)) for i in map(sample_id_of, range(0, step * IDS, step))]
    return {
        **_spread("trace_url_s", [_time_trace(workspace, url) for url in urls]),
        **_spread("trace_domain_s", [_time_trace(workspace, domain) for domain in domains]),
        "trace_largest_domain_s": _time_trace(workspace, understand(domain_of(0))),
        "impact_of_ids": len(ids),
        "impact_s": _timed_cold(workspace, lambda: retract.assess(workspace, ids)),
        "top_domains_s": _timed_cold(workspace, lambda: _top_domains(workspace)),
    }


def _peak_gb() -> float:
    """The most memory that this process had so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)


def _timed_cold(workspace: Path, work: Callable[[], object]) -> float:
    """Wall seconds of one call that finds nothing of the workspace in memory: a small machine holds none of it."""
    for path in files_under(workspace):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return timed(work)


def _spread(name: str, seconds: list[float]) -> dict[str, Any]:
    return {name: statistics.median(seconds), f"{name}_spread": [min(seconds), max(seconds)]}


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def _time_trace(workspace: Path, subject: Subject) -> float:
    def ask() -> None:
        assert trace(workspace, subject).urls_total, f"{subject.text} is not found"

    return _timed_cold(workspace, ask)


def _num_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_under(folder))


def _top_domains(workspace: Path) -> object:
    files = sorted(workspace.glob("shards/*/[0-9][0-9][0-9][0-9][0-9].parquet"))
    with tables.open_tables(files, []) as db:
        return eu.domain_amounts(db)


def as_table(result: Mapping[str, Any]) -> str:
    """The figures beside their targets, as Markdown."""
    lines = [
        "# The ledger",
        "",
        f"`owl3 bench ledger rows={result['rows']}`: {result['rows']:,} rows in shards of 10,000, one built sample per "
        f"four pictures, memory limit of queries 3 GB. Nothing of it is in memory when a question is asked; asking "
        f"took {result['peak_gb']} GB at most, writing and indexing {result['peak_of_writing_gb']} GB.",
        "",
        "| question | seconds | target | |",
        "| --- | --: | --: | --- |",
    ]
    for key, (target, title) in TARGETS.items():
        spread = result.get(f"{key}_spread")
        note = f"{spread[0]:.2f} to {spread[1]:.2f}" if spread else ""
        note = f"{result['card_rows']:,} rows" if key == "card_s" else note
        lines.append(f"| {title} | {result[key]:.2f} | under {target:.0f} | {note} |")
    for found in result["audit"].values():
        kilobytes = found["bytes"] / found["pictures"] / 1e3
        lines.append(
            f"| full audit, share of sha256's speed, pictures of {kilobytes:.0f} KB | {found['share_of_sha256']:.2f} | "
            f"at least 0.7 | {found['audit_mb_per_s']:.0f} of {found['sha256_mb_per_s']:.0f} MB/s, "
            f"{found['processes']} cores against one, {found['cpu_over_sha256']:.2f} of its CPU time (bytes are hashed "
            f"twice); {found['bytes'] / 1e9:.1f} GB in {found['shards']} shards |"
        )
    lines += [
        "",
        f"Writing {'the rest of it ' if result['resumed_from_bytes'] else ''}took {result['writing_s']:.0f} s "
        f"({result['ledger_bytes'] / 1e9:.1f} GB), "
        f"indexing {result['indexing_s']:.0f} s ({result['index_bytes'] / 1e9:.1f} GB).",
    ]
    return "\n".join(lines) + "\n"
