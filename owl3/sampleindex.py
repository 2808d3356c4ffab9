"""The index of a samples artifact, `NAME/00000.parquet`: one row per sample and per drop; see `owl3.ledger`.

Who goes by a plan asks for the index as it was when the plan was made: a purge makes the samples anew and retires the
index of the old ones, so that questions about old runs can still be answered.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, read_manifest


def index_folder(workspace: Path, name: str, digest: str) -> Path:
    """Where the index of one version of a samples artifact lies: in place, or retired by a purge.

    Raises:
        InputError: it was made anew since, and nothing was kept of what it was.
    """
    current = workspace / "samples" / name
    if (current / MANIFEST_NAME).is_file() and read_manifest(current).digest == digest:
        return current
    retired = workspace / "retired" / "samples" / name / digest
    if not retired.is_dir():
        raise InputError(
            f"{current}: is not the version {digest[:12]} that a plan was made from, and that one is gone; "
            "bring it back, or remove the plan and its runs"
        )
    return retired


def kept_rows(path: Path, columns: Sequence[str]) -> pa.Table:
    """Read columns of the kept rows of one sample index, in the order in which they stand in the tar.

    Raises:
        InputError: when the index is missing, damaged or of another kind.
    """
    try:
        table = pq.read_table(path, columns=[*columns, "decision", "position"], memory_map=True, use_threads=False)
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; build its samples again") from error
    except (pa.ArrowException, OSError) as error:
        if path.parts[-5:-3] == ("retired", "samples"):
            raise InputError(
                f"samples {path.parts[-3]}: a purge made them anew since this plan was made, and what it held is gone; "
                "plan a clean run and train that: owl3 retract … --rerun RUN=NEW"
            ) from error
        raise InputError(f"{path}: not a sample index ({str(error).splitlines()[0]}); build it again") from error
    missing = {*columns, "decision", "position"} - set(table.column_names)
    if missing:
        raise InputError(f"{path}: index has no column {min(missing)!r}; build it again with this version")
    table = table.filter(pc.equal(table["decision"], "kept"))
    positions = table["position"].to_numpy()
    if np.any(positions[1:] <= positions[:-1]):
        table = table.take(np.argsort(positions, kind="stable"))
    return table.select(list(columns))
