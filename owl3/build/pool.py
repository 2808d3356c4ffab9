"""The parents that pictures are drawn from: kept rows of curated shards, as one row table on disk.

    {"sample_id": "9f…", "caption": "a red circle", "language": "en", "source": "scenes", "licence": "CC0-1.0",
     "url": "http://…", "path": "shards/photos/00000.tar", "offset": 2048, "bytes": 4711, "sha256": "…",
     "width": 96, "height": 96, "extra": ""}

`extra` is one more column of the shard tables, for builders that need it (OCR text).
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.build.drafts import Medium, Place, clean_text
from owl3.build.rows import KeyIndex, RowTable, write_rows
from owl3.errors import InputError
from owl3.ledger import check_reason, tombstones_path
from owl3.samples import canonical_url

SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("caption", pa.string()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("url", pa.string()),
        ("path", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("extra", pa.string()),
        ("extra2", pa.string()),
    ]
)
_TABLE_COLUMNS = {"offset": "media_offset", "bytes": "media_bytes"}


@dataclass
class PoolStats:
    """Conservation of parents: seen = usable + Σ dropped."""

    seen: int = 0
    usable: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str, rows: int) -> None:
        """Count rows that are left out of the pool."""
        if rows:
            self.dropped[check_reason(reason)] += rows


def shard_tables(workspace: Path, names: Sequence[str]) -> list[Path]:
    """The tables of some shard sets, in order.

    Raises:
        InputError: when a set has none.
    """
    tables = []
    for name in names:
        folder = workspace / "shards" / name
        found = sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9].parquet"))
        if not found:
            raise InputError(f"{folder}: no shard tables; curate it first (owl3 curate)")
        tables += found
    return tables


def write_pool(
    path: Path,
    workspace: Path,
    names: Sequence[str],
    *,
    distinct: bool = False,
    captioned: bool = False,
    extras: Sequence[str | None] = (),
) -> PoolStats:
    """Gather the kept rows of some shard sets into a row table.

    Args:
        distinct: One picture only once, with its first caption, however many captions it has. A pair that several
            shard sets hold is always taken once.
        captioned: Leave out rows without a caption after cleaning.
        extras: Up to two more columns to carry along; a table that lacks one gives nulls.

    Returns:
        What became of the kept rows. Retracted ids never come in.
    """
    stats = PoolStats()
    retracted = _retracted(workspace)

    def tables() -> Iterator[pa.Table]:
        for table_path in shard_tables(workspace, names):
            for kept in _kept_rows(table_path, workspace, extras):
                stats.seen += kept.num_rows
                rows = _leave_out(kept, pc.is_in(kept["sample_id"], retracted), "tombstoned", stats)
                if captioned:
                    rows = _clean_captions(rows)
                    rows = _leave_out(rows, pc.equal(rows["caption"], ""), "empty_text", stats)
                stats.usable += rows.num_rows
                yield rows

    write_rows(path, SCHEMA, tables())
    if len(names) > 1:
        keep_first_of_each(path, "sample_id", "duplicate_row", stats)
    if distinct:
        keep_first_of_each(path, "sha256", "duplicate_exact", stats)
    return stats


def _kept_rows(table_path: Path, workspace: Path, extras: Sequence[str | None]) -> Iterator[pa.Table]:
    """The kept rows of one shard table, in the pool's columns, a row group at a time."""
    file = pq.ParquetFile(table_path)
    present = set(file.schema_arrow.names)
    wanted = {name: _TABLE_COLUMNS.get(name, name) for name in SCHEMA.names}
    wanted |= {"extra": (extras[0] or "") if extras else "", "extra2": (extras[1] or "") if len(extras) > 1 else ""}
    missing = {"sample_id", "decision", "sha256", "media_offset", "media_bytes"} - present
    if missing:
        raise InputError(f"{table_path}: has no column {', '.join(sorted(missing))}; is this a curated shard's table?")
    columns = [column for column in wanted.values() if column in present]
    tar = table_path.with_suffix(".tar").relative_to(workspace).as_posix()
    for batch in file.iter_batches(columns=[*columns, "decision"], batch_size=8192):
        table = pa.Table.from_batches([batch])
        table = table.filter(pc.equal(table["decision"], "kept"))
        arrays = [
            pa.array([tar] * table.num_rows, pa.string())
            if name == "path"
            else (_cast(table[column], SCHEMA.field(name).type) if column in present else pa.nulls(table.num_rows))
            for name, column in wanted.items()
        ]
        yield pa.table(arrays, names=list(wanted)).select(SCHEMA.names).cast(SCHEMA)


def _cast(column: pa.ChunkedArray, wanted: pa.DataType) -> pa.ChunkedArray | pa.Array:
    """Lists and records (words that an OCR program found) become JSON."""
    if not pa.types.is_nested(column.type):
        return column.cast(wanted)
    return pa.array([None if value is None else json.dumps(value) for value in column.to_pylist()], wanted)


def _clean_captions(rows: pa.Table) -> pa.Table:
    captions = pa.array([clean_text(text or "") for text in rows["caption"].to_pylist()], pa.string())
    return rows.set_column(rows.schema.get_field_index("caption"), "caption", captions)


def _leave_out(rows: pa.Table, mask: Any, reason: str, stats: PoolStats) -> pa.Table:
    left = rows.filter(pc.invert(mask))
    stats.drop(reason, rows.num_rows - left.num_rows)
    return left


def keep_first_of_each(path: Path, column_name: str, reason: str, stats: PoolStats) -> None:
    """Write the table again with each value of a column of hex digests once; holds 8 bytes of each in memory."""
    rows = RowTable(path)
    chunks = [
        np.array([int(digest[:16], 16) for digest in column.to_pylist()], dtype=np.uint64)
        for column in rows.column(column_name)
    ]
    if not chunks:
        return
    _, first = np.unique(np.concatenate(chunks), return_index=True)
    if len(first) == len(rows):
        return
    keep = np.zeros(len(rows), dtype=bool)
    keep[first] = True
    stats.drop(reason, len(rows) - len(first))
    stats.usable = len(first)
    offsets = np.cumsum([0] + [len(chunk) for chunk in chunks])

    def kept() -> Iterator[pa.Table]:
        for index, batch in enumerate(rows.batches()):
            yield pa.Table.from_batches([batch]).filter(pa.array(keep[offsets[index] : offsets[index + 1]]))

    write_rows(path, SCHEMA, kept())


def _retracted(workspace: Path) -> pa.Array:
    path = tombstones_path(workspace)
    if not path.is_file():
        return pa.array([], pa.string())
    return pq.read_table(path, columns=["sample_id"])["sample_id"].combine_chunks()


class Pool:
    """Parents by number."""

    def __init__(self, path: Path) -> None:
        self.rows = RowTable(path)
        index = path.with_suffix(".index")
        self._index = KeyIndex(index) if index.is_dir() else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return self.rows[row]

    def medium(self, row: int) -> Medium:
        """The picture of a parent, as a place to read from."""
        return medium_of(self.rows[row], row)

    def find(self, key: str) -> int | None:
        """The first parent with this sample id or URL, in any spelling of the URL; None when there is none."""
        assert self._index is not None, "this pool was written without an index"
        spelt = [key]
        if "://" in key:
            try:
                spelt.append(canonical_url(key))
            except ValueError:
                return None  # an address that can't be parsed was never fetched
        for spelling in spelt:
            for row in self._index.candidates(spelling):
                if spelling in _names_of(self.rows[row]):
                    return row
        return None


def medium_of(parent: dict[str, Any], row: int = -1) -> Medium:
    """The picture of a pool row."""
    place = Place(
        path=parent["path"],
        offset=parent["offset"],
        num_bytes=parent["bytes"],
        sha256=parent["sha256"],
        width=parent["width"] or 0,
        height=parent["height"] or 0,
    )
    return Medium(place=place, row=row, width=place.width, height=place.height)


def _names_of(parent: dict[str, Any]) -> set[str]:
    names = {parent["sample_id"]}
    if parent["url"]:
        names.add(parent["url"])
        with contextlib.suppress(ValueError):  # what can't be parsed is found by its own spelling
            names.add(canonical_url(parent["url"]))
    return names


def write_pool_index(path: Path) -> None:
    """Make a pool's parents findable by sample id and URL."""
    rows = RowTable(path)

    def keys() -> Iterator[tuple[str, int]]:
        for row in range(len(rows)):
            for name in sorted(_names_of(rows[row])):
                yield name, row

    KeyIndex.write(path.with_suffix(".index"), keys())
