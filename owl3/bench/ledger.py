"""How fast the ledger answers: trace, impact of a retraction, top domains, card; and a full audit against sha256 alone.

    owl3 bench ledger                                      10 M rows, minutes
    owl3 bench ledger rows=100_000_000 stage=write keep=true
    owl3 bench ledger rows=100_000_000 stage=ask           the size that the targets are stated for, in two sittings

Every figure comes with the number of rows it was measured on; `ledger.md` beside it sets it against its target.
"""

from __future__ import annotations

import json
import resource
import shutil
import statistics
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

BYTES_PER_ROW = 330
"""Ledger, index and what sorting spills, at their largest; measured."""

TARGETS: Mapping[str, tuple[float, str]] = {
    "trace_url_s": (2, "trace by URL"),
    "trace_domain_s": (10, "trace by domain"),
    "trace_largest_domain_s": (10, "trace by the largest domain"),
    "impact_s": (60, f"retraction impact of {IDS:,} ids"),
    "top_domains_s": (60, "top-domains table"),
    "card_s": (60, "card of a corpus, end to end"),
}

Stage = Literal["all", "write", "ask"]


def run(
    out_dir: Path,
    *,
    rows: int = 10_000_000,
    stage: Stage = "all",
    keep: bool = False,
    card_rows: int = 1_000_000,
    pictures: int = 8_000,
) -> dict[str, Any]:
    """Write a ledger of `rows` rows with its index, and ask it; render a card; audit a shard.

    Args:
        stage: `write` only writes and indexes, `ask` takes what an earlier run kept.
        keep: Leave the ledger behind.

    Raises:
        ConfigError: the disk is too small, or there is nothing to ask.
    """
    workspace, notes = out_dir / "ledger-bench", out_dir / "written.json"
    result: dict[str, Any] = {"rows": rows}
    if stage != "ask":
        result |= _write(workspace, rows)
        notes.write_text(json.dumps(result))
        if stage == "write":
            return result
    elif not notes.is_file() or json.loads(notes.read_text())["rows"] != rows:
        raise ConfigError(f"{workspace}: holds no ledger of {rows:,} rows; write it first: stage=write keep=true")
    else:
        result = json.loads(notes.read_text())
    result |= _ask(workspace, rows)
    if not keep:
        shutil.rmtree(workspace)
        notes.unlink()
    result |= {"card_rows": card_rows, "card_s": time_card(out_dir / "card-bench", card_rows)}
    result["audit"] = {side: audit_against_hashing(out_dir / "audit-bench", pictures, side) for side in AUDIT_SIDES}
    result["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    (out_dir / "ledger.md").write_text(as_table(result), encoding="utf-8")
    return result


def _write(workspace: Path, rows: int) -> dict[str, Any]:
    shutil.rmtree(workspace, ignore_errors=True)
    free = shutil.disk_usage(workspace.parent).free
    if free < rows * BYTES_PER_ROW:
        raise ConfigError(
            f"{workspace.parent}: {free / 1e9:.0f} GB are free, {rows:,} rows take {rows * BYTES_PER_ROW / 1e9:.0f} GB "
            "with index and spill; ask for fewer rows=, or give another --out"
        )
    written = timed(lambda: write_ledger(workspace, rows))
    ledger_bytes = _num_bytes(workspace)
    indexed = timed(lambda: build_indexes(workspace))
    return {
        "rows": rows,
        "writing_s": written,
        "ledger_bytes": ledger_bytes,
        "indexing_s": indexed,
        "index_bytes": _num_bytes(workspace / "index"),
    }


def _ask(workspace: Path, rows: int) -> dict[str, Any]:
    numbers = [rows * (2 * k + 1) // (2 * QUESTIONS) for k in range(QUESTIONS)]
    urls = [understand(url_of(number)) for number in numbers]
    domains = [understand(domain_of(number)) for number in numbers]
    step = max(1, rows // IDS)
    ids = [Subject("sample_id", i, (i,)) for i in map(sample_id_of, range(0, step * IDS, step))]
    return {
        **_spread("trace_url_s", [_time_trace(workspace, url) for url in urls]),
        **_spread("trace_domain_s", [_time_trace(workspace, domain) for domain in domains]),
        "trace_largest_domain_s": _time_trace(workspace, understand(domain_of(0))),
        "impact_of_ids": len(ids),
        "impact_s": timed(lambda: retract.assess(workspace, ids)),
        "top_domains_s": timed(lambda: _top_domains(workspace)),
    }


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

    return timed(ask)


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
        f"four pictures, memory limit of queries 3 GB, largest process {result['peak_gb']} GB.",
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
            f"{found['processes']} cores against one |"
        )
    lines += [
        "",
        f"Writing took {result['writing_s']:.0f} s ({result['ledger_bytes'] / 1e9:.1f} GB), "
        f"indexing {result['indexing_s']:.0f} s ({result['index_bytes'] / 1e9:.1f} GB).",
    ]
    return "\n".join(lines) + "\n"
