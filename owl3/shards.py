"""Tars whose bytes depend on their samples alone, with an index that finds each member by offset.

A shard is `00000.tar` and, beside it, `00000.parquet` with one row per sample and per drop. The tar is plain USTAR with
fixed times and owners, members of a sample adjacent, so webdataset reads it as it is; the index makes every member
reachable by (path, offset, bytes) without opening the tar.
"""

import hashlib
import os
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

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
    """Write one tar, all or nothing: `with ShardWriter(path) as tar: tar.add(key, {"json": …, "0.jpg": …})`.

    `sha256` is the hash of what has been written: of the whole file once the writer is closed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.num_samples = 0
        self._keys: set[str] = set()
        self._size = 0
        self._digest = hashlib.sha256()

    def __enter__(self) -> Self:
        self._context = atomic_writer(self.path)
        self._handle: BinaryIO = self._context.__enter__()
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            end = self._size + 2 * tarfile.BLOCKSIZE  # two empty blocks, filled up to a whole record
            self._write(bytes(-(-end // tarfile.RECORDSIZE) * tarfile.RECORDSIZE - self._size))
        self._context.__exit__(kind, error, trace)

    @property
    def sha256(self) -> str:
        """Of the bytes so far, as 64 hex digits."""
        return self._digest.hexdigest()

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
        self._write(tar_header(name, len(data)))
        offset = self._size
        self._write(data)
        self._write(bytes(-len(data) % tarfile.BLOCKSIZE))
        return Member(name, offset, len(data))

    def _write(self, data: bytes) -> None:
        self._handle.write(data)
        self._digest.update(data)
        self._size += len(data)


def tar_header(name: str, num_bytes: int) -> bytes:
    """The header block of a file, as `tarfile` writes it, in a tenth of its time.

    Raises:
        ValueError: when USTAR can't hold the name or the size.
    """
    encoded = name.encode()
    if len(encoded) > tarfile.LENGTH_NAME or num_bytes > _MAX_PLAIN_SIZE:
        return _tarfile_header(name, num_bytes)
    size = b"%011o" % num_bytes
    checksum = _BLANK_SUM + sum(encoded) + sum(size)
    padding = bytes(tarfile.LENGTH_NAME - len(encoded))
    return b"".join((encoded, padding, _BLANK[100:124], size, _BLANK[135:148], b"%06o\0" % checksum, _BLANK[155:]))


def _tarfile_header(name: str, num_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    info.mtime = 0
    info.mode = 0o644
    return info.tobuf(tarfile.USTAR_FORMAT)


_MAX_PLAIN_SIZE = 0o77777777777
_BLANK = _tarfile_header("", 0)
_BLANK_SUM = sum(_BLANK[:148]) + 8 * ord(" ") + sum(_BLANK[156:]) - 11 * ord("0")
"""Of the header's bytes, with blanks for the checksum itself and nothing for name and size."""
_BLANK_OWNER, _BLANK_TIME, _BLANK_TAIL = _BLANK[100:124], _BLANK[135:148], _BLANK[155:]
_BLANK_REST = 8 * ord(" ") + sum(_BLANK[156:])
"""Of the bytes from the checksum on."""


def plain_names(headers: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[bytes] | None:
    """Names in headers, when each is what `tar_header` writes for its name and this size; None when any is not.

    Args:
        headers: (number, 512) bytes.
        sizes: Of the files, in bytes.
    """
    if sizes.size and not 0 <= sizes.min() <= sizes.max() <= _MAX_PLAIN_SIZE:
        return None
    names = headers[:, : tarfile.LENGTH_NAME]
    digits = _octal(sizes, 11)
    expected = np.tile(np.frombuffer(_BLANK, np.uint8), (len(headers), 1))
    expected[:, : tarfile.LENGTH_NAME] = names
    expected[:, 124:135] = digits
    expected[:, 148:154] = _octal(names.sum(1, np.int64) + digits.sum(1, np.int64) + _BLANK_SUM, 6)
    expected[:, 154] = 0
    if not np.array_equal(headers, expected):
        return None
    return np.ascontiguousarray(names).view(f"S{tarfile.LENGTH_NAME}").ravel().tolist()  # without the zeros behind


def _octal(numbers: NDArray[np.int64], num_digits: int) -> NDArray[np.uint8]:
    shifts = np.arange(3 * (num_digits - 1), -1, -3)
    return ((numbers[:, None] >> shifts & 7) + ord("0")).astype(np.uint8)


def read_member(path: Path, offset: int, num_bytes: int) -> bytes:
    """Read one member by its place.

    Raises:
        InputError: when the file ends before the member does: it was truncated or rewritten since it was indexed.
    """
    with path.open("rb") as handle:
        if not 0 <= offset <= offset + num_bytes <= os.fstat(handle.fileno()).st_size:  # whoever wrote the place down
            raise InputError(f"{path}: ends inside a member at {offset}; the shard was truncated, build it again")
        handle.seek(offset)
        return handle.read(num_bytes)


def iter_members(path: Path) -> Iterator[tuple[Member, bytes]]:
    """Read a tar from front to back.

    Our own tars hold plain USTAR headers and are read as such, several times faster than by `tarfile`; from the first
    header of another kind on, `tarfile` takes over.

    Raises:
        InputError: when it is damaged; everything before the damage has been yielded.
    """
    with path.open("rb") as handle:
        while header := handle.read(tarfile.BLOCKSIZE):
            if header == END_BLOCK:
                return
            offset = handle.tell()
            name, size = plain_header(header)
            if name is None:
                handle.seek(offset - len(header))
                yield from other_members(handle, path)
                return
            data = handle.read(size)
            if len(data) != size:
                raise InputError(f"{path}: ends inside {name}; the shard was truncated")
            handle.seek(-size % tarfile.BLOCKSIZE, os.SEEK_CUR)
            yield Member(name, offset, size), data
        if not handle.tell():
            raise InputError(f"{path}: not a whole tar (empty file); build it again")


END_BLOCK = bytes(tarfile.BLOCKSIZE)


def plain_header(header: bytes) -> tuple[str | None, int]:
    """Name and size in a header as `tar_header` writes it; None for any other, a damaged one included."""
    digits = header[124:135]
    if header[155:] != _BLANK_TAIL or header[135:148] != _BLANK_TIME or header[100:124] != _BLANK_OWNER:
        return None, 0
    # The low half of an Adler-32 that starts at 0 is the sum of the bytes, which so few can't bring to its modulus.
    checksum = (zlib.adler32(header[:148], 0) & 0xFFFF) + _BLANK_REST
    if not digits.isdigit() or header[148:155] != b"%06o\0" % checksum:
        return None, 0
    try:
        return header[: tarfile.LENGTH_NAME].rstrip(b"\0").decode(), int(digits, 8)
    except ValueError:
        return None, 0


def other_members(handle: BinaryIO, path: Path) -> Iterator[tuple[Member, bytes]]:
    """What `tarfile` reads from here on: headers of all kinds, slowly.

    Raises:
        InputError: the tar is damaged.
    """
    try:
        with tarfile.open(fileobj=handle, mode="r:") as tar:
            for info in tar:
                if info.isfile():
                    member = tar.extractfile(info)
                    assert member is not None
                    data = member.read()
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


def is_table(path: str) -> bool:
    """Whether a file of an artifact is a ledger table ("00000.parquet", not "00000_evidence.parquet")."""
    stem, _, suffix = path.rpartition(".")
    return suffix == "parquet" and len(stem) == 5 and stem.isdecimal()


def write_index(path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write a Parquet table, all or nothing, with bytes that depend on its rows alone."""
    write_table(path, pa.Table.from_pylist(list(rows), schema=schema))


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
