"""From what the engine left to final shards: in source order, decided, counted, and complete or not there at all.

`judge` looks at one shard and says what is known about each of its rows; the whole corpus is then looked at for
duplicates, dead hosts and evaluation pictures; `publish` writes one shard's tar, table, evidence and statistics. Both
depend on files alone, so shards may be done in any order and in several processes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.config import canonical_json
from owl3.curate.decide import ClipCheck, MediaCheck, first_reason
from owl3.curate.fetch import ROW_COLUMN
from owl3.curate.hosts import is_answer
from owl3.curate.spool import Outcome, Spool, url_id
from owl3.curate.table import EVIDENCE_TABLE, STAGE_OF_REASON, member_json, with_source_columns
from owl3.ledger import REASONS, check_reason
from owl3.manifest import Counts
from owl3.media import ImageFacts, VideoFacts, strip_jpeg_metadata
from owl3.shards import ShardWriter, iter_members, read_member, write_index, write_table
from owl3.storage import write_atomic

RATING_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("domain", pa.string()),
        ("caption", pa.string()),
        ("reason", pa.string()),
        ("answered", pa.bool_()),  # by its host
        ("media_sha256", pa.string()),
        ("phash", pa.string()),
    ]
)
_EXTENSIONS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "webm", "avi": "avi"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the view of the whole corpus adds to a row."""

    reason: str
    duplicate_of: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """Where the working files of one shard lie."""

    work: Path
    shard: str

    @property
    def rows(self) -> Path:
        """All rows, with the reason of those that were dropped before the fetch."""
        return self.work / "rows" / f"{self.shard}.parquet"

    @property
    def fetch(self) -> Path:
        """The rows to fetch: `index` into the rows, `url`."""
        return self.work / "fetch" / f"{self.shard}.parquet"

    @property
    def spool(self) -> Path:
        """What was fetched."""
        return self.work / "spools" / self.shard

    @property
    def engine(self) -> Path:
        """img2dataset's table of the shard (pictures only)."""
        return self.work / "engine" / f"{self.shard}.parquet"

    @property
    def rating(self) -> Path:
        """What `judge` found, one row per row."""
        return self.work / "ratings" / f"{self.shard}.parquet"


def judge(files: ShardFiles, media: str, checks: list[MediaCheck] | list[ClipCheck]) -> None:
    """Write what is known about each row of a shard from its own bytes, reasons included."""
    rows = pq.read_table(files.rows).to_pylist()
    engine = _engine_rows(files) if media == "image" else {}
    found = []
    with Spool(files.spool) as spool:
        for index, row in enumerate(rows):
            outcome = None if row["reason"] else spool.get(url_id(row["url"]))
            reason = row["reason"] or _own_reason(outcome, engine.get(index), media, checks)
            facts = (outcome.facts or {}) if outcome else {}
            found.append(
                {
                    "sample_id": row["sample_id"],
                    "domain": row["domain"],
                    "caption": row["caption"],
                    "reason": check_reason(reason) if reason else None,
                    "answered": outcome is not None and is_answer(outcome.reason),
                    "media_sha256": outcome.sha256 if outcome else None,
                    "phash": facts.get("phash"),
                }
            )
    write_index(files.rating, found, RATING_COLUMNS)


def _own_reason(outcome: Outcome | None, engine: Mapping[str, Any] | None, media: str, checks: list[Any]) -> str | None:
    if outcome is None:
        return "engine_error"
    if outcome.reason:
        return outcome.reason
    assert outcome.facts is not None
    facts = ImageFacts(**outcome.facts) if media == "image" else VideoFacts(**outcome.facts)
    reason = first_reason(checks, facts)
    if reason or media == "video":
        return reason
    if engine is None or engine["status"] == "failed_to_download":
        return "engine_error"
    return None if engine["status"] == "success" else "resize_failed"


def _engine_rows(files: ShardFiles) -> dict[int, Mapping[str, Any]]:
    """img2dataset's rows by their index in the shard."""
    if not files.engine.is_file():
        return {}
    index = pq.read_table(files.fetch, columns=["index"]).column("index").to_pylist()
    return {index[row[ROW_COLUMN]]: row for row in pq.read_table(files.engine).to_pylist()}


def publish(
    files: ShardFiles, folder: Path, *, media: str, source: str, user_agent: str, verdicts: Mapping[str, Verdict]
) -> Counts:
    """Write one shard's final files into `folder` and return its counts.

    Args:
        verdicts: By sample id: what the view of the whole corpus decided.
    """
    rows_table = pq.read_table(files.rows)
    reasons = pq.read_table(files.rating, columns=["reason"]).column("reason").to_pylist()
    engine = _engine_rows(files) if media == "image" else {}
    stored = _Stored(files)
    table, evidence = [], []
    with Spool(files.spool) as spool, ShardWriter(folder / f"{files.shard}.tar") as tar:
        for index, (row, own_reason) in enumerate(zip(rows_table.to_pylist(), reasons, strict=True)):
            outcome = None if row["reason"] else spool.get(url_id(row["url"]))
            verdict = verdicts.get(row["sample_id"])
            reason = verdict.reason if verdict else own_reason
            known = _row(row, outcome, engine.get(index), media)
            known |= {"source": source, "shard": files.shard, "user_agent": user_agent if outcome else None}
            if verdict is not None:
                known |= {"duplicate_of": verdict.duplicate_of, "benchmark": verdict.benchmark}
            if reason is None:
                assert outcome is not None
                data = spool.body(outcome) if media == "video" else stored.read(engine[index])
                known |= _add(tar, known, strip_jpeg_metadata(data) if known["extension"] == "jpg" else data)
            else:
                known |= _dropped(reason, outcome)
            table.append(known)
            if outcome is not None:
                evidence.append(_evidence(known, outcome))
    return _write_tables(files, folder, table, evidence, with_source_columns(rows_table))


class _Stored:
    """Members of the engine's tar, by img2dataset's key."""

    def __init__(self, files: ShardFiles) -> None:
        self._tar = files.engine.with_suffix(".tar")
        self._places = {}
        if self._tar.is_file():
            for member, _ in iter_members(self._tar):
                key, _, extension = member.name.partition(".")
                if extension not in ("json", "txt"):
                    self._places[key] = member

    def read(self, engine: Mapping[str, Any]) -> bytes:
        """The stored picture of a row of the engine's table."""
        place = self._places[engine["key"]]
        return read_member(self._tar, place.offset, place.num_bytes)


def _row(
    row: Mapping[str, Any], outcome: Outcome | None, engine: Mapping[str, Any] | None, media: str
) -> dict[str, Any]:
    """What the table says about a row, before its decision."""
    known = {name: value for name, value in row.items() if name != "reason"}
    if outcome is None:
        return known
    known |= {
        "http_status": outcome.http_status,
        "final_url": outcome.final_url or None,
        "media_sha256": outcome.sha256,
        "rights_signal": outcome.rights_signal,
        "rights_value": outcome.rights_value,
        "status": "success" if outcome.reason is None else "failed_to_download",
    }
    facts = outcome.facts or {}
    if media == "image" and facts:
        known |= {name: facts[name] for name in ("format", "phash", "grey_std", "sharpness", "entropy", "frames")}
        known |= {"original_width": facts["width"], "original_height": facts["height"]}
    elif facts:
        known |= {name: facts[name] for name in ("duration_s", "fps", "frames", "width", "height")}
        known |= {"format": facts["codec"], "extension": _EXTENSIONS.get(facts["container"], "mp4")}
    if engine is not None and engine["status"] == "success":
        known |= {"width": engine["width"], "height": engine["height"], "exif": engine.get("exif"), "extension": "jpg"}
    elif engine is not None and outcome.reason is None:
        known |= {"status": engine["status"]}
    return known


def _add(tar: ShardWriter, known: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Write a kept row's members; return where they lie."""
    key = known["sample_id"]
    known |= {"decision": "kept", "key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = canonical_json(member_json(known))
    members = tar.add(key, {known["extension"]: data, "txt": known["caption"].encode("utf-8"), "json": text})
    media, _, meta = members
    return {
        "json_offset": meta.offset,
        "json_bytes": meta.num_bytes,
        "media_offset": media.offset,
        "media_bytes": media.num_bytes,
    }


def _dropped(reason: str, outcome: Outcome | None) -> dict[str, str | None]:
    fetched = outcome is not None and outcome.reason is None
    stage = STAGE_OF_REASON.get(reason, "decide" if fetched or outcome is None else "fetch")
    status = outcome.http_status if outcome else None
    message = f"HTTP {status}" if status and status >= 400 else REASONS[check_reason(reason)]
    known: dict[str, str | None] = {
        "decision": "dropped",
        "reason": reason,
        "stage": stage,
        "error_message": message,
        "extension": None,
    }
    if reason == "dead_host":  # some of its rows were tried before it was given up, others not; they count as one
        known |= {"rights_signal": "none", "rights_value": ""}
    return known


def _evidence(known: Mapping[str, Any], outcome: Outcome) -> dict[str, Any]:
    return {
        "sample_id": known["sample_id"],
        "url": known["url"],
        "signal": outcome.rights_signal,
        "value": outcome.rights_value,
        "time": outcome.started,
        "user_agent": known["user_agent"],
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "address": outcome.address,
        "message": outcome.message,
    }


def _write_tables(
    files: ShardFiles, folder: Path, table: list[dict[str, Any]], evidence: list[dict[str, Any]], schema: pa.Schema
) -> Counts:
    reasons = Counter(row["reason"] for row in table if row["decision"] == "dropped")
    kept = sum(row["decision"] == "kept" for row in table)
    counts = Counts(seen=len(table), kept=kept, dropped=dict(sorted(reasons.items())))
    status = Counter(row.get("status") for row in table)
    messages = Counter(row.get("error_message") or "success" for row in table if row.get("status"))
    times = sorted(row["time"] for row in evidence)
    stats = {  # img2dataset's keys first
        "count": len(table),
        "successes": status["success"],
        "failed_to_download": status["failed_to_download"],
        "failed_to_resize": status["failed_to_resize"],
        "duration": round(sum(row["seconds"] for row in evidence), 3),
        "start_time": times[0] if times else None,
        "end_time": times[-1] if times else None,
        "status_dict": dict(sorted(messages.items())),
        "kept": kept,
        "dropped": counts.dropped,
    }
    write_table(folder / f"{files.shard}_evidence.parquet", pa.Table.from_pylist(evidence, schema=EVIDENCE_TABLE))
    write_atomic(folder / f"{files.shard}_stats.json", json.dumps(stats, indent=4).encode() + b"\n")
    rows = [{name: row.get(name) for name in schema.names} for row in table]
    write_table(folder / f"{files.shard}.parquet", pa.Table.from_pylist(rows, schema=schema))  # last: it is complete
    return counts
