"""Read rows of metadata dumps, whatever file they come in: parquet, csv, tsv, json, jsonl, plain or gzipped."""

import csv
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.errors import InputError
from owl3.storage import sha256_of

_BATCH_ROWS = 16_384
_FIELD_CHARS = 1 << 24


def digest_files(paths: Sequence[Path]) -> list[dict[str, str]]:
    """What a source was made from: names and content, not where the files lie on this machine."""
    return [{"name": path.name, "sha256": sha256_of(path)} for path in paths]


def read_table(
    path: Path, header: bool = True, delimiter: str | None = None, rows_at: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table as mappings from column name to value, without loading it whole (json excepted).

    Args:
        header: False when a separated table begins with its first row; columns are then "0", "1" …
        delimiter: Of a separated table; None takes comma for csv, tab for tsv and txt.
        rows_at: Key under which the rows of a json object lie.

    Raises:
        InputError: when the file is of no known kind, or broken.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes]
    kind = suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else (suffixes or [""])[-1]
    try:
        match kind:
            case ".parquet":
                for batch in pq.ParquetFile(path).iter_batches(batch_size=_BATCH_ROWS):
                    yield from batch.to_pylist()
            case ".csv" | ".tsv" | ".txt":
                yield from _read_separated(path, delimiter or ("," if kind == ".csv" else "\t"), header)
            case ".jsonl" | ".ndjson":
                yield from _read_json_lines(path)
            case ".json":
                yield from _read_json(path, rows_at)
            case _:
                raise InputError(f"{path}: unknown kind of table; known: parquet, csv, tsv, txt, json, jsonl (and .gz)")
    except (pa.ArrowInvalid, csv.Error, OSError, UnicodeError) as error:
        raise InputError(f"{path}: can't be read as {kind}: {str(error)[:200]}") from error


def _open_text(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="replace", newline="")
    return path.open(encoding="utf-8-sig", errors="replace", newline="")


def _read_separated(path: Path, delimiter: str, header: bool) -> Iterator[dict[str, Any]]:
    """Read csv or tsv. Tab-separated dumps (CC3M) hold lone quotes in captions, so quoting is for commas only."""
    csv.field_size_limit(_FIELD_CHARS)
    with _open_text(path) as handle:
        if delimiter == "\t":
            rows = csv.reader(handle, delimiter=delimiter, quoting=csv.QUOTE_NONE)
        else:
            rows = csv.reader(handle, delimiter=delimiter)
        names = next(rows, None) if header else None
        for row in rows:
            labels = names or [str(index) for index in range(len(row))]
            yield dict.fromkeys(labels) | dict(zip(labels, row, strict=False))


def _read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    with _open_text(path) as handle:
        for number, line in enumerate(handle, start=1):
            if line.strip():
                yield _mapping(json_value(line, path, number), path, number)


def _read_json(path: Path, rows_at: str | None) -> Iterator[dict[str, Any]]:
    with _open_text(path) as handle:
        text = handle.read()
    if text.lstrip()[:1] == "{" and "\n{" in text:  # JSON lines under the wrong name are common
        yield from _read_json_lines(path)
        return
    data = json_value(text, path, 1)
    if rows_at is not None:
        if not isinstance(data, dict) or rows_at not in data:
            raise InputError(f"{path}: has no key {rows_at!r} (rows_at)")
        data = data[rows_at]
    if isinstance(data, dict) and len({len(c) if isinstance(c, list) else -1 for c in data.values()} - {-1}) == 1:
        columns = {name: column for name, column in data.items() if isinstance(column, list)}
        data = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]  # as SBU has them
    if not isinstance(data, list):
        raise InputError(f"{path}: must hold a list of rows, holds a {type(data).__name__} (rows_at says where)")
    for number, row in enumerate(data, start=1):
        yield _mapping(row, path, number)


def json_value(text: str, path: Path, number: int) -> Any:
    """Parse JSON; an error names the file and the row."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: row {number}: not JSON: {error}") from error


def _mapping(row: Any, path: Path, number: int) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{path}: row {number}: must be an object of columns, is a {type(row).__name__}")
    return row
