"""Every file of a workspace, looked through for words that should be gone: the proof of a takedown.

Tables are read column by column, tars member by member, JSON as the strings that it holds, pages as the text that they
show, and everything else byte by byte. Weights are not looked into: what a model has learned is taken out by training
it again (`owl3 retract --rerun`).
"""

from __future__ import annotations

import gzip
import html
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.cards.said import NAME, Said
from owl3.errors import InputError
from owl3.shards import iter_members

_WEIGHTS = (".safetensors", ".pt", ".npy", ".bin")
_URL = re.compile(r"https?://[^\s\"'<>\\\x00-\x1f]+")
_MOST_BYTES, _OVERLAP = 1 << 26, 1 << 17
"""Of a file that are looked at together; a larger JSON document is read as text."""


class Finder:
    """Says whether a text holds any of the words."""

    def __init__(self, said: Said) -> None:
        self.texts = said.texts
        self.inside = said.inside
        self.raw = [part.encode() for part in said.inside]
        self.values = pa.array(sorted(said.texts), pa.string())
        parts = "|".join(re.escape(text) for text in sorted(said.inside, key=len, reverse=True))
        # Not inside of a longer word or URL: http://a/1 is not in http://a/12.
        self.parts = re.compile(rf"(?<!\w)(?:{parts})(?![\w/?&=%#-]|\.\w)") if parts else None

    def holds(self, text: str) -> bool:
        """Whether it is one of the words, has one as a line or a URL or, where they are few, anywhere."""
        if text in self.texts or any(url.rstrip(".,;:)") in self.texts for url in _URL.findall(text)):
            return True
        if self.parts is not None:
            return any(part in text for part in self.inside) and self.parts.search(text) is not None
        return any(line.strip() in self.texts for line in text.splitlines())

    def in_bytes(self, data: bytes) -> bool:
        """Whether bytes that somebody opens show any of the words."""
        if b"\0" in data[:1024]:  # no text
            return any(part in data for part in self.raw)
        return any(self.holds(text) for text in _texts_of(data))

    def in_column(self, column: pa.Array | pa.ChunkedArray) -> bool:
        """Whether any text in a column of a table, however deep, is or holds one of the words."""
        kind = column.type
        if pa.types.is_struct(kind):
            flat = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
            return any(self.in_column(pc.struct_field(flat, [number])) for number in range(kind.num_fields))
        if pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return self.in_column(pc.list_flatten(column))
        if pa.types.is_binary(kind):
            return any(self.holds(value.decode(errors="replace")) for value in column.drop_null().to_pylist())
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
            return False
        if pc.any(pc.is_in(column.cast(pa.string()), self.values)).as_py():
            return True
        likely = pc.fill_null(pc.match_substring(column, "://"), False) if self.parts is None else None
        texts = column.drop_null() if likely is None else column.filter(likely)
        return any(self.holds(text) for text in pc.unique(texts).to_pylist())


def find(workspace: Path, said: Said, folders: Iterable[Path] = ()) -> list[str]:
    """Files of a workspace, and below further folders, that still say something of what was taken out."""
    if not said.texts:
        return []
    finder = Finder(said)
    roots = [workspace, *(folder for folder in folders if workspace not in (folder, *folder.parents))]
    paths = [path for root in roots if root.is_dir() for path in sorted(root.rglob("*"))]
    files = [path for path in paths if path.is_file() and path != workspace / NAME and path.suffix not in _WEIGHTS]
    return [_shown(path, workspace) for path in files if finder.holds(path.name) or _is_in(finder, path)]


def _shown(path: Path, workspace: Path) -> str:
    return path.relative_to(workspace).as_posix() if path.is_relative_to(workspace) else str(path)


def _is_in(finder: Finder, path: Path) -> bool:
    if path.suffix == ".parquet":
        return _in_table(finder, path)
    if path.suffix == ".tar":
        return _in_tar(finder, path)
    return any(finder.in_bytes(block) for block in _blocks(path))


def _in_table(finder: Finder, path: Path) -> bool:
    try:
        with pq.ParquetFile(path) as file:
            names, groups = file.schema_arrow.names, range(file.num_row_groups)
            return any(finder.in_column(file.read_row_group(n, columns=[name])[name]) for n in groups for name in names)
    except (pa.ArrowException, OSError):  # called a table, but none
        return any(finder.in_bytes(block) for block in _blocks(path))


def _in_tar(finder: Finder, path: Path) -> bool:
    """Texts and records of its samples, and what stands in a picture's own metadata."""
    try:
        return any(finder.holds(member.name) or finder.in_bytes(data) for member, data in iter_members(path))
    except InputError:  # called a tar, but none or not a whole one
        return any(finder.in_bytes(block) for block in _blocks(path))


def _blocks(path: Path) -> Iterator[bytes]:
    """A file, unpacked where it is packed by gzip, in pieces that overlap by more than the longest URL."""
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            rest = b""
            while piece := file.read(_MOST_BYTES):
                yield rest + piece
                rest = piece[-_OVERLAP:]
    except (EOFError, zlib.error, gzip.BadGzipFile):  # begins like one: what could be unpacked was
        yield path.read_bytes()[:_MOST_BYTES]


def _texts_of(data: bytes) -> Iterator[str]:
    """What somebody who opens these bytes could read there."""
    text = data.decode("utf-8", errors="replace")
    yield text
    if "&" in text and "<" in text:
        yield html.unescape(text)
    if text[:1] in ("[", "{"):
        documents = [found for found in map(_parsed, text.splitlines()) if found is not None]
        whole = _parsed(text)
        yield from _strings(documents if whole is None else whole)


def _parsed(text: str) -> Any:
    """A JSON document; None for what is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from _strings(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)
