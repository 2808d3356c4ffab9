"""Tables on disk that are read by row number: what makes drawing from ten million parents cheap.

A table is an Arrow IPC file, memory-mapped, so workers share the page cache. Its batches end at `BATCH_ROWS` rows or
`BATCH_BYTES`: rows may hold whole pictures. It is working state of a build; the artifact itself is Parquet.
"""

import json
import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from owl3.build.draw import key_of
from owl3.errors import InputError
from owl3.storage import partial_path

BATCH_ROWS = 4096
BATCH_BYTES = 64 << 20
_NEIGHBOURS = 64
"""Rows that are decoded together where rows are read one after another."""
_READ_CHARS = 1 << 20
_READ_ROWS = 64
"""Of a Parquet file at once: a row with its pictures may take megabytes."""
_BLANK = re.compile(r"\s*")
_BETWEEN = re.compile(r"\s*,?\s*")


class RowTable:
    """Rows by number, without loading the table."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]  # views of the map
        self._firsts: list[int] = list(accumulate((batch.num_rows for batch in self._batches), initial=0))
        self._last = -1
        self._ahead: tuple[int, list[dict[str, Any]]] = (0, [])

    def __len__(self) -> int:
        return self._firsts[-1]

    def __getitem__(self, index: int) -> dict[str, Any]:
        first, rows = self._ahead
        if not first <= index < first + len(rows):
            number = bisect_right(self._firsts, index) - 1
            wanted = _NEIGHBOURS if index == self._last + 1 else 1
            part = self._batches[number].slice(index - self._firsts[number], wanted)
            first, rows = self._ahead = index, part.to_pylist()
        self._last = index
        return dict(rows[index - first])

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Walk over the table, batch by batch."""
        yield from self._batches

    def column(self, name: str) -> Iterator[pa.Array]:
        """Walk over one column, batch by batch."""
        for batch in self.batches():
            yield batch.column(name)


def write_rows(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write tables as one row table, all or nothing, and return its number of rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = partial_path(path)
    rows = 0
    with pa.OSFile(str(aside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        pending = schema.empty_table()
        for table in tables:
            pending = pa.concat_tables([pending, table.cast(schema)])
            if pending.num_rows >= BATCH_ROWS or pending.nbytes >= BATCH_BYTES:
                rows += _write_batches(writer, pending)
                pending = schema.empty_table()
        rows += _write_batches(writer, pending)
    aside.replace(path)
    return rows


def _write_batches(writer: pa.RecordBatchFileWriter, table: pa.Table) -> int:
    for batch in table.combine_chunks().to_batches(max_chunksize=BATCH_ROWS):
        writer.write_batch(batch)
    return int(table.num_rows)


class KeyIndex:
    """Finds rows by a text key: sorted 64-bit hashes on disk, searched by halving."""

    def __init__(self, folder: Path) -> None:
        self._hashes: NDArray[np.uint64] = np.load(folder / "hashes.npy", mmap_mode="r")
        self._rows: NDArray[np.int64] = np.load(folder / "rows.npy", mmap_mode="r")

    def candidates(self, key: str) -> list[int]:
        """Rows whose key has the same hash, in row order; the caller compares the key itself."""
        wanted = np.uint64(key_of(key))
        first = int(np.searchsorted(self._hashes, wanted, "left"))
        last = int(np.searchsorted(self._hashes, wanted, "right"))
        return sorted({int(row) for row in self._rows[first:last]})

    @staticmethod
    def write(folder: Path, keys: Iterable[tuple[str, int]]) -> None:
        """Index (key, row) pairs. Holds 16 bytes per pair in memory."""
        pairs = np.fromiter(
            ((key_of(key), row) for key, row in keys), dtype=np.dtype([("hash", np.uint64), ("row", np.int64)])
        )
        pairs.sort(order=("hash", "row"))
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "hashes.npy", pairs["hash"])
        np.save(folder / "rows.npy", pairs["row"])


def iter_json(path: Path) -> Iterator[Any]:
    """Read the rows of a JSON list, of JSON lines or of a Parquet file, one after another, in flat memory.

    Raises:
        InputError: for another file, or where it breaks off; it says after how many rows.
    """
    rows = 0
    try:
        for row in _iter_parquet(path) if path.suffix == ".parquet" else _iter_json_file(path):
            yield row
            rows += 1
    except OSError as error:
        raise InputError(f"{path}: can't be read: {error.strerror or error}") from error
    except RecursionError as error:
        raise InputError(f"{path}: row {rows} is nested too deeply to be read") from error
    except (ValueError, pa.ArrowException) as error:  # JSON's own, text that is not UTF-8, a number of 5,000 digits
        what = error.msg if isinstance(error, json.JSONDecodeError) else str(error).splitlines()[0]
        kind = "Parquet" if path.suffix == ".parquet" else "JSON"
        raise InputError(f"{path}: not {kind} after {rows} rows: {what}") from error


def _iter_parquet(path: Path) -> Iterator[Any]:
    for batch in pq.ParquetFile(path).iter_batches(_READ_ROWS):
        yield from batch.to_pylist()


def _iter_json_file(path: Path) -> Iterator[Any]:
    with path.open(encoding="utf-8-sig") as handle:  # Windows' editors put a mark before the text
        yield from _iter_json_text(handle)


def _iter_json_text(handle: TextIO) -> Iterator[Any]:
    """Decode value after value from a sliding window, so that a list of a million rows needs no million rows."""
    decoder = json.JSONDecoder()
    is_list: bool | None = None  # the first character tells
    text, place, ended = "", 0, False
    while True:
        place = _skip(_BETWEEN if is_list else _BLANK, text, place)
        if is_list and text.startswith("]", place):
            return
        if is_list is None and place < len(text):
            is_list = text.startswith("[", place)
            place += is_list
            continue
        if place < len(text):
            try:
                value, end = decoder.raw_decode(text, place)
                if end < len(text) or ended:  # a number at the window's edge may go on
                    yield value
                    place = end
                    continue
            except json.JSONDecodeError:
                if ended:
                    raise
        elif ended:
            if is_list:
                raise json.JSONDecodeError("the list is not closed", text, place)
            return
        text, place = text[place:], 0
        chunk = handle.read(max(_READ_CHARS, len(text)))
        ended = not chunk
        text += chunk


def _skip(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place
