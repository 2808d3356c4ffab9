"""The views that figures query: the ledger's tables as they lie on disk, or tables derived again by an audit.

Nothing is loaded whole: DuckDB scans the Parquet files in place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from owl3.ledger import open_duckdb

# Columns a figure may ask for; a table that lacks one gets it as null, so that queries stay the same for every corpus.
ROW_COLUMNS: Mapping[str, str] = {
    "sample_id": "varchar",
    "url": "varchar",
    "domain": "varchar",
    "caption": "varchar",
    "language": "varchar",
    "licence": "varchar",
    "source": "varchar",
    "decision": "varchar",
    "reason": "varchar",
    "stage": "varchar",
    "shard": "varchar",
    "key": "varchar",
    "media_sha256": "varchar",
    "sha256": "varchar",
    "phash": "varchar",
    "width": "bigint",
    "height": "bigint",
    "format": "varchar",
    "extension": "varchar",
    "media_offset": "bigint",
    "media_bytes": "bigint",
    "http_status": "varchar",
    "duplicate_of": "varchar",
    "benchmark": "varchar",
    "clip_similarity": "double",
    "rights_signal": "varchar",
    "rights_value": "varchar",
    "src_similarity": "double",
    "src_nsfw": "double",
    "filename": "varchar",
}
MEDIA = (
    'struct("path" varchar, "offset" bigint, bytes bigint, sha256 varchar, '
    "width integer, height integer, time_s double)"
)
BUILT_COLUMNS: Mapping[str, str] = {
    "sample_id": "varchar",
    "decision": "varchar",
    "reason": "varchar",
    "shard": "varchar",
    "key": "varchar",
    "kind": "varchar",
    "builder": "varchar",
    "source": "varchar",
    "licence": "varchar",
    "parents": "varchar[]",
    "text_tokens": "bigint",
    "trained_tokens": "bigint",
    "images": "bigint",
    "media": f"{MEDIA}[]",
    "filename": "varchar",
}


def open_tables(row_files: Sequence[Path], built_files: Sequence[Path]) -> duckdb.DuckDBPyConnection:
    """Return a connection with the views rows, kept, built and samples over Parquet files; a list may be empty."""
    db = open_duckdb()
    db.execute("set preserve_insertion_order to false")
    _create_view(db, "rows", row_files, ROW_COLUMNS)
    _create_view(db, "built", built_files, BUILT_COLUMNS)
    db.execute("create view kept as select * from rows where decision = 'kept'")
    db.execute("create view samples as select * from built where decision = 'kept'")
    return db


def quoted(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def file_list(files: Sequence[Path]) -> str:
    """A SQL list of file names."""
    return "[" + ", ".join(quoted(str(file)) for file in files) + "]"


def views_of(db: duckdb.DuckDBPyConnection) -> set[str]:
    """Which views a connection has."""
    return {row[0] for row in db.execute("select view_name from duckdb_views() where not internal").fetchall()}


def records(db: duckdb.DuckDBPyConnection, query: str, values: Sequence[Any] = ()) -> list[dict[str, Any]]:
    """Rows of a query as dictionaries."""
    cursor = db.execute(query, list(values))
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _create_view(
    db: duckdb.DuckDBPyConnection,
    name: str,
    files: Sequence[Path],
    columns: Mapping[str, str],
) -> None:
    present: set[str] = set()
    relation = "(select 1 where false)"
    if files:
        relation = f"read_parquet({file_list(files)}, union_by_name = true, filename = true)"
        present = {row[0] for row in db.execute(f"describe select * from {relation}").fetchall()}
    picked = [
        f"try_cast({column} as {kind}) as {column}" if column in present else f"cast(null as {kind}) as {column}"
        for column, kind in columns.items()
    ]
    db.execute(f"create view {name} as select {', '.join(picked)} from {relation}")


def measured_columns(db: duckdb.DuckDBPyConnection) -> frozenset[str]:
    """Which "view.column" entries hold at least one value: one scan per view."""
    found: set[str] = set()
    for view, columns in (("rows", ROW_COLUMNS), ("built", BUILT_COLUMNS)):
        counts = db.execute(f"select {', '.join(f'count({column})' for column in columns)} from {view}").fetchone()
        assert counts is not None
        found.update(f"{view}.{column}" for column, count in zip(columns, counts, strict=True) if count)
    return frozenset(found)
