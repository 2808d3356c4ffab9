"""A prepared source: a folder of URL tables, read in pieces."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq


def source_folder(workspace: Path, name: str) -> Path:
    """Where a source's URL tables lie."""
    return workspace / "sources" / name


def url_tables(folder: Path) -> list[Path]:
    """A prepared source's URL tables, in order."""
    return sorted(folder.glob("urls-*.parquet"))


def count_rows(folder: Path) -> int:
    """Rows of a prepared source."""
    return sum(pq.read_metadata(path).num_rows for path in url_tables(folder))


def iter_rows(folder: Path, batch_rows: int, first: int = 0) -> Iterable[pa.Table]:
    """Read a prepared source from piece `first` on, in pieces of exactly `batch_rows` rows; the last may be shorter."""
    pending: list[pa.Table] = []
    held, skip = 0, first * batch_rows
    for path in url_tables(folder):
        file = pq.ParquetFile(path)
        groups: list[int] = []
        for group in range(file.metadata.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            if not groups and skip >= rows:
                skip -= rows
            else:
                groups.append(group)
        for batch in file.iter_batches(batch_size=min(batch_rows, 65_536), row_groups=groups) if groups else ():
            passed = min(skip, batch.num_rows)
            skip -= passed
            pending.append(pa.Table.from_batches([batch.slice(passed)]))
            held += batch.num_rows - passed
            while held >= batch_rows:
                whole = pa.concat_tables(pending, promote_options="permissive")
                yield whole.slice(0, batch_rows)
                pending, held = [whole.slice(batch_rows)], held - batch_rows
    if held:
        yield pa.concat_tables(pending, promote_options="permissive")
