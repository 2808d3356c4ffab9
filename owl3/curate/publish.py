"""From what the engine left to final shards: in source order, decided, counted, and complete or not there at all.

`judge` looks at one shard and says what is known about each of its rows; the whole corpus is then looked at for
duplicates, dead hosts and evaluation pictures; `publish` writes one shard's tar, table, evidence and statistics. Both
depend on files alone, so shards may be done in any order and in several processes.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.config import plain_json
from owl3.curate.decide import ClipCheck, MediaCheck, first_reason
from owl3.curate.engine import ROW_COLUMN
from owl3.curate.faces import Detector
from owl3.curate.fetch import engine_places
from owl3.curate.hosts import is_answer
from owl3.curate.overview import RATING_COLUMNS, Verdict
from owl3.curate.spool import Outcome, Spool
from owl3.curate.table import EVIDENCE_TABLE, STAGE_OF_REASON, member_json, with_source_columns
from owl3.ledger import REASONS, check_reason
from owl3.manifest import Counts
from owl3.media import ImageFacts, MediaError, blur_boxes, extension_of, strip_jpeg_metadata
from owl3.samples import canonical_id
from owl3.shards import ShardWriter, read_member, write_index, write_table
from owl3.storage import write_atomic
from owl3.video import VideoFacts, cut_clip

_EXTENSIONS = {"mov,mp4,m4a,3gp,3g2,mj2": "mp4", "matroska,webm": "webm", "avi": "avi"}
_ENGINE_ROWS = pa.schema(
    [
        ("index", pa.int64()),  # in the shard's rows
        ("status", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("exif", pa.string()),
        ("key", pa.string()),
    ]
)
_ENGINE_COLUMNS = _ENGINE_ROWS.names[1:]


@dataclass(frozen=True, slots=True)
class ShardFiles:
    """Where the working files of one shard lie."""

    work: Path
    shard: str
    previous: Path | None = None
    """The version of the artifact that this run adds rows to (`--retry`)."""

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
    def engine_rows(self) -> Path:
        """What img2dataset said about each row, kept with the artifact; `index` into the rows."""
        return self.work / "engine_rows" / f"{self.shard}.parquet"

    @property
    def rating(self) -> Path:
        """What `judge` found, one row per row."""
        return self.work / "ratings" / f"{self.shard}.parquet"


@dataclass(frozen=True, slots=True)
class Judge:
    """How rows of a medium are decided on."""

    media: str
    checks: list[MediaCheck] | list[ClipCheck]
    verify_sha256: bool

    def reason(self, row: Mapping[str, Any], outcome: Outcome | None, engine: Mapping[str, Any] | None) -> str | None:
        """Why a row that was asked for is dropped, from its own bytes alone; None keeps it."""
        if outcome is None:
            return "engine_error"
        if outcome.reason:
            return outcome.reason
        if self.verify_sha256 and row["expected_sha256"] not in (None, outcome.sha256):
            return "hash_mismatch"
        if self.media == "video":
            return first_reason(self.checks, part_of(row, outcome))
        reason = first_reason(self.checks, ImageFacts(**(outcome.facts or {})))
        if reason is None and (engine is None or engine["status"] == "failed_to_download"):
            return "engine_error"
        return reason if reason or (engine and engine["status"] == "success") else "resize_failed"


def is_cut(row: Mapping[str, Any]) -> bool:
    """Is only a part of the clip wanted?"""
    return row["start_s"] is not None or row["end_s"] is not None


def part_of(row: Mapping[str, Any], outcome: Outcome) -> VideoFacts:
    """Facts of the part of a clip that a row asks for."""
    facts = VideoFacts(**(outcome.facts or {}))
    if not is_cut(row):
        return facts
    start_s = max(0.0, row["start_s"] or 0.0)
    end_s = facts.duration_s if row["end_s"] is None else min(row["end_s"], facts.duration_s)
    length_s = max(0.0, round(end_s - start_s, 3))
    share = length_s / facts.duration_s if facts.duration_s else 0.0
    return replace(facts, duration_s=length_s, frames=round(facts.frames * share))


def judge(files: ShardFiles, how: Judge) -> None:
    """Write what is known about each row of a shard from its own bytes, reasons included."""
    rows = pq.read_table(files.rows).to_pylist()
    engine = _engine_rows(files) if how.media == "image" else {}
    found = []
    with Spool(files.spool) as spool:
        for index, row in enumerate(rows):
            outcome = None if row["reason"] else spool.get(canonical_id(row["canonical_url"]))
            reason = row["reason"] or how.reason(row, outcome, _made(outcome, engine.get(index)))
            part = f" {row['start_s']} {row['end_s']}" if is_cut(row) else ""
            found.append(
                {
                    "sample_id": row["sample_id"],
                    "canonical_url": row["canonical_url"],
                    "domain": row["domain"],
                    "caption": row["caption"],
                    "reason": check_reason(reason) if reason else None,
                    "answered": outcome is not None and (is_answer(outcome.reason) or outcome.redirected),
                    "media_sha256": outcome.sha256 if outcome else None,
                    "same_media": f"{outcome.sha256}{part}" if outcome else None,
                    "phash": (outcome.facts or {}).get("phash") if outcome else None,
                }
            )
    write_index(files.rating, found, RATING_COLUMNS)


def _made(outcome: Outcome | None, engine: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """What became of a picture: of one that was finished as it came we know, of others img2dataset says."""
    if outcome is None or outcome.size is None:
        return engine
    width, height = outcome.size
    return {"status": "success" if width else "failed_to_resize", "width": width, "height": height}


def _engine_rows(files: ShardFiles) -> dict[int, Mapping[str, Any]]:
    """What img2dataset said about each row, by index in the shard; of this run, else of the version before it."""
    found: dict[int, Mapping[str, Any]] = {}
    if files.engine_rows.is_file():
        found = {row["index"]: row for row in pq.read_table(files.engine_rows).to_pylist()}
    if files.engine.is_file():
        index = pq.read_table(files.fetch, columns=["index"]).column("index").to_pylist()
        for row in pq.read_table(files.engine).to_pylist():
            found[index[row[ROW_COLUMN]]] = {name: row.get(name) for name in _ENGINE_COLUMNS} | {"new": True}
    return found


@dataclass(frozen=True, slots=True)
class Label:
    """What all rows of an artifact have in common."""

    media: str
    source: str
    user_agent: str
    quality: int  # of JPEGs that have to be encoded again
    scores: Mapping[str, float] = field(default_factory=dict)  # cosine of picture and caption, by sample id
    find_faces: Detector | None = None  # what is blurred where the corpus brings no boxes


def publish(files: ShardFiles, folder: Path, label: Label, verdicts: Mapping[str, Verdict]) -> Counts:
    """Write one shard's final files into `folder` and return its counts.

    Args:
        verdicts: By sample id: what the view of the whole corpus decided.
    """
    rows_table = pq.read_table(files.rows)
    reasons = pq.read_table(files.rating, columns=["reason"]).column("reason").to_pylist()
    engine = _engine_rows(files) if label.media == "image" else {}
    table, evidence = [], []
    with Spool(files.spool) as spool, ShardWriter(folder / f"{files.shard}.tar") as tar:
        stored = _Stored(files, spool, engine, label)
        for index, (row, own_reason) in enumerate(zip(rows_table.to_pylist(), reasons, strict=True)):
            outcome = None if row["reason"] else spool.get(canonical_id(row["canonical_url"]))
            verdict = verdicts.get(row["sample_id"])
            reason = own_reason if verdict is None else verdict.reason
            known = _row(row, outcome, _made(outcome, engine.get(index)), label.media)
            known |= {"source": label.source, "shard": files.shard, "user_agent": label.user_agent if outcome else None}
            known |= {"clip_similarity": label.scores.get(row["sample_id"])}
            if verdict is not None:
                known |= {"duplicate_of": verdict.duplicate_of, "benchmark": verdict.benchmark}
            data = b""
            if reason is None:
                assert outcome is not None
                try:
                    data = stored.read(index, row, outcome)
                except MediaError as error:  # a part that can't be cut out of its clip
                    reason = error.reason
            if label.media == "image":
                known["extension"] = extension_of(data)
            known |= _add(tar, known, data) if reason is None else _dropped(reason, outcome)
            table.append(known)
            if outcome is not None:
                evidence.append(_evidence(known, outcome))
    return _write_tables(files, folder, table, evidence, with_source_columns(rows_table))


class _Stored:
    """The bytes to store for each kept row, wherever they lie."""

    def __init__(self, files: ShardFiles, spool: Spool, engine: Mapping[int, Mapping[str, Any]], label: Label) -> None:
        self._spool = spool
        self._engine = engine
        self._label = label
        self._tar = files.engine.with_suffix(".tar")
        self._places: dict[str, tuple[int, int]] = {}
        if self._tar.is_file():
            self._places = engine_places(self._tar)
        self._previous_tar = files.previous / f"{files.shard}.tar" if files.previous else None
        self._previous = _kept_places(files.previous / f"{files.shard}.parquet") if files.previous else {}

    def read(self, index: int, row: Mapping[str, Any], outcome: Outcome) -> bytes:
        """What is stored for a row.

        Raises:
            MediaError: when its part can't be cut out of the clip.
        """
        if row["sample_id"] in self._previous:
            assert self._previous_tar is not None
            return read_member(self._previous_tar, *self._previous[row["sample_id"]])
        if self._label.media == "video":
            data = self._spool.body(outcome)
            return cut_clip(data, row["start_s"] or 0.0, _end(row)) if is_cut(row) else data
        if outcome.size is not None:
            data = self._spool.body(outcome, made=True)
        else:
            data = read_member(self._tar, *self._places[self._engine[index]["key"]])
        if row["boxes"]:
            orientation = (outcome.facts or {})["orientation"]
            data = blur_boxes(data, row["boxes"], orientation, self._label.quality)
        elif self._label.find_faces is not None and (faces := self._label.find_faces(data)):
            data = blur_boxes(data, faces, quality=self._label.quality)
        return strip_jpeg_metadata(data)


def _end(row: Mapping[str, Any]) -> float:
    return float("inf") if row["end_s"] is None else float(row["end_s"])


def _kept_places(table: Path) -> dict[str, tuple[int, int]]:
    """Where an earlier version stores its kept rows."""
    columns = ["sample_id", "decision", "media_offset", "media_bytes"]
    rows = pq.read_table(table, columns=columns).to_pylist()
    return {r["sample_id"]: (r["media_offset"], r["media_bytes"]) for r in rows if r["decision"] == "kept"}


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
        part = part_of(row, outcome)
        known |= {"duration_s": part.duration_s, "frames": part.frames, "fps": part.fps, "format": part.codec}
        known |= {"width": part.width, "height": part.height}
        known |= {"extension": "mp4" if is_cut(row) else _EXTENSIONS.get(part.container, "mp4")}
    if engine is not None and engine["status"] == "success":
        known |= {"width": engine["width"], "height": engine["height"], "exif": engine.get("exif")}
    elif engine is not None and outcome.reason is None:
        known |= {"status": engine["status"]}
    return known


def _add(tar: ShardWriter, known: dict[str, Any], data: bytes) -> dict[str, Any]:
    """Write a kept row's members; return where they lie."""
    key = known["sample_id"]
    known |= {"decision": "kept", "key": key, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    text = plain_json(member_json(known))
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


def keep_engine_rows(files: ShardFiles) -> None:
    """Write what img2dataset said about all rows so far, without its pictures: a later retry starts from it."""
    rows = [
        {"index": index, **{name: row.get(name) for name in _ENGINE_COLUMNS}}
        for index, row in sorted(_engine_rows(files).items())
    ]
    write_table(files.engine_rows, pa.Table.from_pylist(rows, schema=_ENGINE_ROWS))
