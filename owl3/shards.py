"""Tars whose bytes depend on their samples alone, with an index that finds each member by offset.

A shard is `00000.tar` and, beside it, `00000.parquet` with one row per sample and per drop. The tar is plain USTAR with
fixed times and owners, members of a sample adjacent, so webdataset reads it as it is; the index makes every member
reachable by (path, offset, bytes) without opening the tar.
"""

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.errors import InputError
from owl3.storage import atomic_writer, partial_path

MEDIA_TYPE = pa.struct(
    [
        ("path", pa.string()),  # relative to the workspace
        ("offset", pa.int64()),  # of the first byte of the medium
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("time_s", pa.float64()),  # null for pictures
    ]
)

SAMPLE_INDEX = pa.schema(
    [
        ("sample_id", pa.string()),
        ("decision", pa.string()),  # kept | dropped
        ("reason", pa.string()),  # null when kept
        ("shard", pa.string()),
        ("key", pa.string()),
        ("position", pa.int64()),  # order within the shard, null when dropped
        ("kind", pa.string()),
        ("builder", pa.string()),
        ("builder_version", pa.string()),
        ("seed", pa.int64()),
        ("source", pa.string()),
        ("licence", pa.string()),
        ("parents", pa.list_(pa.string())),
        ("text_tokens", pa.int32()),  # chat style, template and uncut placeholders included
        ("trained_tokens", pa.int32()),
        ("plain_tokens", pa.int32()),  # the same text in plain style, for stages with prompt_style: plain
        ("plain_trained_tokens", pa.int32()),
        ("cut_tokens", pa.int32()),  # chat style with every picture cut; null where nothing can be cut
        ("images", pa.int32()),
        ("tiles", pa.list_(pa.int32())),  # per medium when cut, global view included
        ("json_offset", pa.int64()),
        ("json_bytes", pa.int64()),
        ("media", pa.list_(MEDIA_TYPE)),
    ]
)


@dataclass(frozen=True, slots=True)
class Member:
    """Where one file of a sample lies inside a tar."""

    name: str
    offset: int
    num_bytes: int


class ShardWriter:
    """Write one tar, all or nothing: `with ShardWriter(path) as tar: tar.add(key, {"json": …, "0.jpg": …})`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_samples = 0
        self._keys: set[str] = set()

    def __enter__(self) -> Self:
        self._context = atomic_writer(self.path)
        self._handle: BinaryIO = self._context.__enter__()
        self._tar = tarfile.open(fileobj=self._handle, mode="w", format=tarfile.USTAR_FORMAT)
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self._tar.close()
        self._context.__exit__(kind, error, trace)

    def add(self, key: str, members: Mapping[str, bytes]) -> list[Member]:
        """Append a sample's members in the order given; `members` maps extension to bytes.

        Raises:
            ValueError: when the key holds a dot or a separator, or was used before in this shard.
        """
        if not key or "." in key or "/" in key or "\\" in key:
            raise ValueError(f"key {key!r}: dots and separators would split it")
        if key in self._keys:
            raise ValueError(f"key {key!r} is in {self.path.name} already")
        self._keys.add(key)
        self.num_samples += 1
        return [self._append(f"{key}.{extension}", data) for extension, data in members.items()]

    def _append(self, name: str, data: bytes) -> Member:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        info.mtime = 0
        info.mode = 0o644
        offset = self._handle.tell() + tarfile.BLOCKSIZE  # USTAR: exactly one header block
        self._tar.addfile(info, io.BytesIO(data))
        return Member(name, offset, len(data))


def read_member(path: Path, offset: int, num_bytes: int) -> bytes:
    """Read one member by its place.

    Raises:
        InputError: when the file ends before the member does: it was truncated or rewritten since it was indexed.
    """
    with path.open("rb") as handle:
        handle.seek(offset)
        data = handle.read(num_bytes)
    if len(data) != num_bytes:
        raise InputError(f"{path}: ends inside a member at {offset}; the shard was truncated, build it again")
    return data


def iter_members(path: Path) -> Iterator[tuple[Member, bytes]]:
    """Read a tar from front to back.

    Raises:
        InputError: when it is damaged; everything before the damage has been yielded.
    """
    try:
        with tarfile.open(path, "r:") as tar:
            for info in tar:
                if info.isfile():
                    handle = tar.extractfile(info)
                    assert handle is not None
                    data = handle.read()
                    if len(data) != info.size:
                        raise InputError(f"{path}: ends inside {info.name}; the shard was truncated")
                    yield Member(info.name, info.offset_data, info.size), data
    except tarfile.TarError as error:
        raise InputError(f"{path}: not a whole tar ({error}); build it again") from error


def iter_samples(path: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Read a tar sample by sample: (key, {extension: bytes}); members of one key are adjacent."""
    key, members = "", dict[str, bytes]()
    for member, data in iter_members(path):
        stem, _, extension = member.name.partition(".")
        if stem != key and members:
            yield key, members
            members = {}
        key = stem
        members[extension] = data
    if members:
        yield key, members


def write_index(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write a Parquet table, all or nothing, with bytes that depend on its rows alone."""
    table = pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)
    write_table(path, table)


def write_table(path: Path, table: pa.Table) -> None:
    """Write an Arrow table as Parquet, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = partial_path(path)
    try:
        pq.write_table(table, aside, compression="zstd", compression_level=3, version="2.6")
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
