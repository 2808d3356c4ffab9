"""What lint asks of all indexes at once: does any sample stand twice, and where do the parents come from?

DuckDB reads the indexes in place, so memory does not grow with the number of samples.
"""

from collections.abc import Sequence
from pathlib import Path

import duckdb

from owl3.build.findings import Finding
from owl3.ledger import connect, open_duckdb

_EXAMPLES = 20
"""Findings of one kind that are written out; of the rest it says how many they are."""
_KEPT_ROWS = ("shard_rows", "sample_rows")


def find_repeats(folder: Path, tars: Sequence[Path]) -> list[Finding]:
    """Samples that several rows keep."""
    with open_duckdb() as connection:
        query = (
            f"SELECT sample_id FROM {_indexes(tars)} WHERE decision = 'kept' GROUP BY 1 HAVING count(*) > 1 ORDER BY 1"
        )
        repeated = [row[0] for row in connection.execute(query).fetchall()]
    return _findings("duplicate", [(f"{folder}: {sample}", "is kept by several rows") for sample in repeated], folder)


def find_orphans(workspace: Path, folder: Path, tars: Sequence[Path]) -> list[Finding]:
    """Parents that are nowhere, or retracted. Files from outside of the shard sets are named by hash: no row."""
    with connect(workspace, whole=False) as connection:
        connection.execute(
            "CREATE TEMP TABLE named AS SELECT parent, min(sample_id) AS child FROM "
            f"(SELECT sample_id, unnest(parents) AS parent FROM {_indexes(tars)} WHERE decision = 'kept') "
            "WHERE parent NOT LIKE 'sha256:%' GROUP BY parent"
        )
        listed = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
        views = {view for (view,) in listed}
        known = [f"SELECT sample_id FROM {view} WHERE decision = 'kept'" for view in _KEPT_ROWS if view in views]
        nowhere = f"parent NOT IN ({' UNION '.join(known)})" if known else "true"
        orphans = _parents(connection, nowhere)
        retracted = (
            _parents(connection, "parent IN (SELECT sample_id FROM tombstones)") if "tombstones" in views else []
        )
    found = [(f"{folder}: {child}", f"parent {parent} was retracted") for parent, child in retracted]
    gone = [(f"{folder}: {child}", f"parent {parent} is nowhere in {workspace}") for parent, child in orphans]
    return _findings("retracted", found, folder) + _findings("parents", gone, folder)


def _parents(connection: duckdb.DuckDBPyConnection, condition: str) -> list[tuple[str, str]]:
    query = f"SELECT parent, child FROM named WHERE {condition} ORDER BY 1"
    return [(parent, child) for parent, child in connection.execute(query).fetchall()]


def _indexes(tars: Sequence[Path]) -> str:
    """The indexes beside some tars, for a FROM clause."""
    files = ", ".join("'" + str(tar.with_suffix(".parquet")).replace("'", "''") + "'" for tar in tars)
    return f"read_parquet([{files}], union_by_name = true)"


def _findings(rule: str, found: Sequence[tuple[str, str]], folder: Path) -> list[Finding]:
    shown = [Finding(rule, where, what) for where, what in found[:_EXAMPLES]]
    if len(found) > _EXAMPLES:
        shown.append(Finding(rule, str(folder), f"… and {len(found) - _EXAMPLES} more"))
    return shown
