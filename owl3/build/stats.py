"""Counts and costs of a sample set, read back from its indexes."""

from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from owl3.ledger import open_duckdb
from owl3.manifest import Counts


def count_index(path: Path) -> Counts:
    """What became of the attempts of one shard."""
    table = pq.read_table(path, columns=["decision", "reason"])
    dropped = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
    kept = table["decision"].to_pylist().count("kept")
    return Counts(seen=table.num_rows, kept=kept, dropped=dict(sorted(dropped.items())))


def sample_stats(folder: Path) -> dict[str, Any]:
    """Totals of a sample set: tokens, images, how many images a sample has, how often a parent is used."""
    files = (folder / "[0-9][0-9][0-9][0-9][0-9].parquet").as_posix().replace("'", "''")
    connection = open_duckdb()
    connection.execute(f"CREATE VIEW kept AS SELECT * FROM read_parquet('{files}') WHERE decision = 'kept'")
    totals = _row(
        connection,
        "SELECT count(*), sum(text_tokens), sum(trained_tokens), sum(images), max(text_tokens), max(images), "
        "sum(list_sum(tiles)) FROM kept",
    )
    names = ("samples", "text_tokens", "trained_tokens", "images", "max_text_tokens", "max_images", "tiles_when_cut")
    per_sample = connection.execute("SELECT images, count(*) FROM kept GROUP BY 1 ORDER BY 1").fetchall()
    parents = _row(
        connection,
        "SELECT count(*), sum(uses), max(uses) FROM "
        "(SELECT count(*) AS uses FROM (SELECT unnest(parents) AS parent FROM kept) GROUP BY parent)",
    )
    connection.close()
    return {
        **{name: int(value or 0) for name, value in zip(names, totals, strict=True)},
        "images_per_sample": {str(images): int(samples) for images, samples in per_sample},
        "parents_used": dict(zip(("distinct", "uses", "max_uses"), (int(v or 0) for v in parents), strict=True)),
    }


def _row(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query).fetchone()
    assert row is not None
    return tuple(row)
