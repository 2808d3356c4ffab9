"""What a takedown leaves of a row: ids and hashes, and why it is gone. No URL, no caption, nothing else that was said.

A column that is not on these lists is cleared, so that one which a corpus brings along (`src_*`), or which is new, does
not stay by being forgotten. What was cleared is told again by hashes alone: an id is that of (URL, caption), and a
tombstone has the URL's.

    sources/NAME/urls-00000.parquet    sample_id, licence, position
    sources/NAME/dropped.parquet       row, reason
    shards/NAME/00000.parquet          ids, decision, licence, the picture's hash as fetched
    shards/NAME/00000_evidence.parquet sample_id, which signal was seen, when
    tombstones.parquet                 what was asked for as a hash, the URL's id, the picture's hash
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock

from owl3.ledger import TOMBSTONES, read_tombstones, tombstones_path
from owl3.samples import canonical_id
from owl3.shards import write_table

SOURCE_KEEPS = frozenset({"sample_id", "licence", "position"})
SHARD_KEEPS = SOURCE_KEEPS | {"decision", "reason", "stage", "shard", "source", "media_sha256"}
EVIDENCE_KEEPS = frozenset({"sample_id", "signal", "time"})
DROPPED_KEEPS = frozenset({"row", "reason"})

_HASHED = ("url", "domain", "image")
"""What may say who somebody is; a licence, a hash or an id does not."""
_TELLS_PICTURE = ("url", "sha256", "image")
"""Who asks for these asks for the picture, wherever it is shown; who asks for a domain or a licence does not."""


def clear(table: pa.Table, hit: pa.Array | pa.ChunkedArray, keeps: Collection[str]) -> pa.Table:
    """The table with nothing but some columns left in the rows that are hit."""
    for number, field in enumerate(table.schema):
        if field.name not in keeps:
            emptied = pc.if_else(hit, pa.scalar(None, field.type), table.column(number))
            table = table.set_column(number, field, emptied)
    return table


def says_anything(table: Path, ids: pa.Array, keeps: Collection[str]) -> bool:
    """Whether a row with one of these ids has a value that a takedown does not leave."""
    with pq.ParquetFile(table) as file:
        hit = pc.is_in(file.read(columns=["sample_id"])["sample_id"], ids)
        if not pc.any(hit).as_py():
            return False
        rows = file.read().filter(hit)
    return any(column.null_count < len(column) for name, column in _columns(rows, keeps))


def _columns(table: pa.Table, keeps: Collection[str]) -> list[tuple[str, pa.ChunkedArray]]:
    return [(name, table[name]) for name in table.column_names if name not in keeps]


def clear_tombstones(workspace: Path, ids: Collection[str], left: Mapping[str, Mapping[str, Any]]) -> None:
    """Hash what tombstones say of samples that are cleared, and note the hashes by which these are told again.

    Args:
        left: By sample id, `canonical_url` and `media_sha256` of those that have a row of their own.
    """
    path = tombstones_path(workspace)
    with FileLock(workspace / ".tombstones.lock"):
        if not path.is_file():
            return
        rows = read_tombstones(workspace).to_pylist()
        for row in rows:
            if row["sample_id"] not in ids:
                continue
            known = left.get(row["sample_id"], {})
            if row["matched_by"] in _HASHED and not str(row["matched_value"]).startswith("sha256:"):
                row["matched_value"] = hashed(str(row["matched_value"]))
            if known.get("canonical_url"):
                row["url_id"] = canonical_id(str(known["canonical_url"]))
            if known.get("media_sha256") and row["matched_by"] in _TELLS_PICTURE:
                row["media_sha256"] = known["media_sha256"]
        write_table(path, pa.Table.from_pylist(rows, schema=TOMBSTONES))


def hashed(text: str) -> str:
    """A text as it may stand where the text may not."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"
