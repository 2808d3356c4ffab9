"""Where do parents come from? Every id a sample names must be a kept row of this workspace, and not retracted."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from owl3.build.findings import Finding
from owl3.ledger import connect

_EXAMPLES = 20
_KEPT_ROWS = ("shard_rows", "sample_rows")


def find_orphans(workspace: Path, folder: Path, rows: list[dict[str, Any]]) -> list[Finding]:
    """Parents that are nowhere, or retracted. Files from outside of the shard sets are named by hash: no row."""
    named: dict[str, str] = {}
    for row in rows:
        if row.get("decision") != "kept":
            continue
        for parent in row["parents"] or ():
            if not parent.startswith("sha256:"):
                named.setdefault(parent, row["key"])
    if not named:
        return []
    connection = connect(workspace)
    connection.register("named", pa.table({"parent": list(named)}))
    listed = connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    views = {view for (view,) in listed}
    known = [f"SELECT sample_id FROM {view} WHERE decision = 'kept'" for view in _KEPT_ROWS if view in views]
    nowhere = f"parent NOT IN ({' UNION '.join(known)})" if known else "true"
    orphans = _parents(connection, nowhere)
    retracted = _parents(connection, "parent IN (SELECT sample_id FROM tombstones)") if "tombstones" in views else []
    connection.close()
    findings = [
        Finding("retracted", f"{folder}: {named[parent]}", f"parent {parent} was retracted") for parent in retracted
    ]
    findings += [
        Finding("parents", f"{folder}: {named[parent]}", f"parent {parent} is nowhere in {workspace}")
        for parent in orphans[:_EXAMPLES]
    ]
    if len(orphans) > _EXAMPLES:
        findings.append(Finding("parents", str(folder), f"… and {len(orphans) - _EXAMPLES} more parents are missing"))
    return findings


def _parents(connection: duckdb.DuckDBPyConnection, condition: str) -> list[str]:
    query = f"SELECT parent FROM named WHERE {condition} ORDER BY 1"
    return [parent for (parent,) in connection.execute(query).fetchall()]
