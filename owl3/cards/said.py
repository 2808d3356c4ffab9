"""What the ledger says about some rows, kept until it is proved that nothing says it any more.

    .retracted.json     while a purge clears rows: their words, and the hashes that tombstones keep; readable by the
                        owner alone, removed when no file of ours says them any more

Captions like "a dog" are other people's too, so what a remaining row says as well is nobody's secret and is not looked
for. A killed purge finds the words of rows that it has cleared already in this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.ledger import VIEWS
from owl3.storage import atomic_writer

NAME = ".retracted.json"

SHORTEST = 8
"""Characters of a text that is looked for: a shorter one tells nobody from anybody."""

FEW = 64
"""Up to so many texts are looked for inside of others; more of them only as whole values, lines and URLs."""

_WORDS = frozenset({"url", "canonical_url", "final_url", "caption", "exif"})
"""Columns in which something is said of a picture; a corpus's own (`src_*`) are some too."""


@dataclass
class Said:
    """Words about rows that are taken out.

    Attributes:
        rows: By sample id, what tombstones keep: `canonical_url` (as long as the purge lasts) and `media_sha256`.
        texts: URLs, captions and whatever else their corpus said, that no remaining row says.
        inside: Those of them that are long enough, few enough and in no remaining text: to be looked for everywhere.
    """

    rows: dict[str, dict[str, str | None]] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    inside: set[str] = field(default_factory=set)


def remember(workspace: Path, ids: pa.Array) -> Said:
    """Collect what sources and shards say of some rows, and write it down; an interrupted purge's words come along."""
    said = _read(workspace)
    tables = [path for view in ("source_rows", "shard_rows") for path in sorted(workspace.glob(VIEWS[view]))]
    for path in tables:
        rows = _rows(path, ids)
        if rows is not None:
            _note(said, rows)
    for path in tables:
        _leave_out(said, path, ids)
    said.inside = set(said.texts) if len(said.texts) <= FEW else set()
    for path in tables if said.inside else ():
        _leave_out_parts(said, path, ids)
    data = {"rows": said.rows, "texts": sorted(said.texts)}
    with atomic_writer(workspace / NAME) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json.dumps(data).encode("ascii"))
    return said


def forget(workspace: Path) -> None:
    """Nobody needs the words any more."""
    (workspace / NAME).unlink(missing_ok=True)


def _read(workspace: Path) -> Said:
    path = workspace / NAME
    if not path.is_file():
        return Said()
    data = json.loads(path.read_bytes())
    return Said(data["rows"], set(data["texts"]))


def _rows(path: Path, ids: pa.Array) -> pa.Table | None:
    """The rows with these ids; None when there are none."""
    with pq.ParquetFile(path) as file:
        if "sample_id" not in file.schema_arrow.names:
            return None
        hit = pc.is_in(file.read(columns=["sample_id"])["sample_id"], ids)
        return file.read().filter(hit) if pc.any(hit).as_py() else None


def _note(said: Said, rows: pa.Table) -> None:
    for row in rows.to_pylist():
        known = said.rows.setdefault(row["sample_id"], {"canonical_url": None, "media_sha256": None})
        for name in known:
            known[name] = row.get(name) or (row.get("url") if name == "canonical_url" else None) or known[name]
    for name in _wordy(rows.schema):
        said.texts.update(text for text in rows[name].drop_null().to_pylist() if len(text) >= SHORTEST)


def _wordy(schema: pa.Schema) -> list[str]:
    """Columns of text that say something."""
    return [f.name for f in schema if pa.types.is_string(f.type) and (f.name in _WORDS or f.name.startswith("src_"))]


def _remaining(path: Path, ids: pa.Array) -> Iterator[pa.ChunkedArray]:
    """The texts of all other rows, column by column."""
    with pq.ParquetFile(path) as file:
        names = _wordy(file.schema_arrow)
        table = file.read(columns=["sample_id", *names])
    others = table.filter(pc.invert(pc.is_in(table["sample_id"], ids)))
    for name in names:
        yield others[name]


def _leave_out(said: Said, path: Path, ids: pa.Array) -> None:
    """Drop texts that a remaining row says too."""
    wanted = pa.array(sorted(said.texts), pa.string())
    for column in _remaining(path, ids):
        said.texts -= set(column.filter(pc.is_in(column, wanted)).to_pylist())


def _leave_out_parts(said: Said, path: Path, ids: pa.Array) -> None:
    """Drop texts that stand inside of what a remaining row says."""
    for column in _remaining(path, ids):
        said.inside -= {text for text in said.inside if pc.any(pc.match_substring(column, text)).as_py()}
