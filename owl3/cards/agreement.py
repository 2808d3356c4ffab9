"""Which samples of a curated shard need a second look: all columns at once, where `rederive.py` goes row by row.

A tar is read once, laid out as its table says (`layout.py`); what its bytes say is set against the table column by
column. A sample that agrees in every value is as its row says, and is not looked at again. Any other, and every sample
of a shard that is not laid out the usual way, is derived by itself, and that names what differs. So this may be
stricter than `rederive.py`, never milder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from owl3.cards.layout import LaidOut, NotLaidOut, Sizes
from owl3.cards.pictures import CLIPS, PICTURES, jpeg_size, size_and_format
from owl3.ledger import REASONS
from owl3.media import MediaError
from owl3.samples import REDACTIONS, url_sample_id
from owl3.shards import Member

Mask = NDArray[np.bool_]
Shape = tuple[int | None, int | None]
"""Width and height; none for clips, which are not measured."""

_PLACES = ("json_offset", "json_bytes", "media_offset", "media_bytes")
_NEEDED = {"key", "decision", "sample_id", "url", "caption", "position", "media_bytes", "json_bytes"}
_NO_SIZE = -1
"""Width and height of what should be a picture and is none: no table says so."""
_MEDIA = {extension.encode() for extension in (*PICTURES, *CLIPS)}
_CLIPS = tuple(f".{extension}".encode() for extension in CLIPS)


@dataclass
class Contents:
    """What one pass over a tar found of each sample: one medium, one text and one record, in this order.

    Attributes:
        tar_sha256: Of the whole file.
        media: The hashes of all pictures and clips.
    """

    kept: pa.Table
    tar_sha256: str = ""
    names: list[bytes] = field(default_factory=list)
    offsets: Sizes = field(default_factory=lambda: np.empty(0, np.int64))
    sizes: Sizes = field(default_factory=lambda: np.empty(0, np.int64))
    media: list[str] = field(default_factory=list)
    shapes: list[Shape] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)

    def members_of(self, keys: Collection[str]) -> dict[str, list[Member]]:
        """Where the members of some samples lie."""
        places = zip(self.names, self.offsets.tolist(), self.sizes.tolist(), strict=True)
        found: dict[str, list[Member]] = {}
        for name, offset, size in places:
            key = name.decode().partition(".")[0]
            if key in keys:
                found.setdefault(key, []).append(Member(name.decode(), offset, size))
        return found


def read_contents(table: pa.Table, tar: Path) -> Contents | None:
    """Read a tar once, keeping texts, records, hashes and sizes; pictures are not kept.

    Returns:
        What was found; None when the tar is not laid out as the table says, and has to be read row by row.
    """
    if not set(table.column_names) >= _NEEDED:
        return None
    try:
        kept = table.filter(pc.equal(table["decision"], "kept")).combine_chunks()
        found = Contents(kept.take(pc.sort_indices(kept["position"])))
        members, seen = LaidOut(tar, _sizes_of(found.kept)), 0
        for views in members:
            media, text, record = (-seen % 3, (1 - seen) % 3, (2 - seen) % 3)  # the first of each in this window
            found.media += [hashlib.sha256(data).hexdigest() for data in views[media::3]]
            shapes = enumerate(map(jpeg_size, views[media::3]))
            found.shapes += [size or _shape(members, media + 3 * n, views) for n, size in shapes]
            found.texts += map(bytes, views[text::3])
            found.records += map(bytes, views[record::3])
            seen += len(views)
        keys = found.kept["key"].cast(pa.binary()).to_pylist()
    except (NotLaidOut, pa.ArrowException):  # or a column of another type: it will be named
        return None
    found.names, found.offsets, found.sizes, found.tar_sha256 = (
        members.names,
        members.offsets,
        members.sizes,
        members.sha256,
    )
    return found if _is_usual(found.names, keys) else None


def _sizes_of(kept: pa.Table) -> Sizes:
    """Of all members, as the table has them."""
    sizes = np.empty(3 * len(kept), np.int64)
    columns = kept["media_bytes"], pc.binary_length(kept["caption"]), kept["json_bytes"]
    for number, column in enumerate(columns):
        if column.null_count:
            raise NotLaidOut
        sizes[number::3] = column.cast(pa.int64()).to_numpy()
    return sizes


def _is_usual(names: list[bytes], keys: list[bytes | None]) -> bool:
    """Whether every key stands there once, with one picture or clip, its text and its record."""
    named = [name.partition(b".") for name in names[::3]]
    return (
        [name[0] for name in named] == keys
        and {name[2] for name in named} <= _MEDIA
        and names[1::3] == [key + b".txt" for key, *_ in named]
        and names[2::3] == [key + b".json" for key, *_ in named]
        and len(set(keys)) == len(keys)
    )


def _shape(members: LaidOut, number: int, views: Sequence[memoryview]) -> Shape:
    """Of what is no plain JPEG."""
    if members.name(number).endswith(_CLIPS):
        return None, None
    try:
        width, height, _ = size_and_format(views[number])
    except MediaError:
        return _NO_SIZE, _NO_SIZE
    return width, height


def to_look_at(found: Contents) -> frozenset[str] | None:
    """Keys of the kept samples that do not agree in every value; None when the shard has to be read row by row."""
    if not found.names:
        return frozenset()
    try:
        agrees = _records_agree(found) & _bytes_agree(found) & _ids_agree(found.kept)
    except (pa.ArrowException, UnicodeDecodeError):  # a column of another type, a record that is none: it will be named
        return None
    keys = found.kept["key"].to_pylist()
    return frozenset(key for key, same in zip(keys, agrees.tolist(), strict=True) if not same)


def _records_agree(found: Contents) -> Mask:
    """Whether every value in KEY.json is the row's.

    Raises:
        pa.ArrowException: a record is no JSON object, or has a field or a type that the table has not, or
        UnicodeDecodeError: it is not UTF-8.
    """
    kept, lines = found.kept, b"\n".join(found.records)
    lines.decode()
    one_each = all(record[:1] == b"{" and record[-1:] == b"}" for record in found.records)
    if not one_each or lines.count(b"\n") != len(found.records) - 1:
        raise pa.ArrowInvalid("records that are more or less than one object on one line")
    # A column without a value is left out: a record that has one there is an error.
    fields = [f for f in kept.schema if f.name not in _PLACES and _is_simple(f.type) and _has_values(kept[f.name])]
    parsed = pj.read_json(
        pa.BufferReader(lines),
        pj.ReadOptions(use_threads=False, block_size=len(lines) + 1),
        pj.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior="error"),
    )
    if len(parsed) != len(kept):
        raise pa.ArrowInvalid("records that are more or less than one object each")
    # A field that is left out says nothing; one that is null says that there is no value, and the parser can't tell.
    agrees = np.array([b"null" not in record for record in found.records])
    for stated in fields:
        column = parsed[stated.name]
        if _has_values(column):
            agrees &= _equal(kept[stated.name], column) | np.asarray(pc.is_null(column))
    return agrees


def _is_simple(kind: pa.DataType) -> bool:
    """Types that JSON has too."""
    return bool(
        pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    )


def _has_values(column: pa.ChunkedArray) -> bool:
    return bool(column.null_count < len(column))


def _bytes_agree(found: Contents) -> Mask:
    """Whether hash, size, place and text of every sample are the row's, of those columns that the table has."""
    kept = found.kept
    widths, heights = zip(*found.shapes, strict=True)
    columns = {
        "sha256": pa.array(found.media),
        "bytes": pa.array(found.sizes[::3]),
        "media_offset": pa.array(found.offsets[::3]),
        "json_offset": pa.array(found.offsets[2::3]),
    }
    agrees = _equal(kept["caption"].cast(pa.binary()), pa.array(found.texts, pa.binary()))
    for name, column in columns.items():
        if name in kept.column_names:
            agrees &= _equal(kept[name], column)
    for name, values in (("width", widths), ("height", heights)):
        if name in kept.column_names:
            measured = pa.array(values, pa.int64())
            agrees &= _equal(kept[name], measured) | np.asarray(pc.is_null(measured))  # a clip's is not measured
    return agrees


def _ids_agree(kept: pa.Table) -> Mask:
    """Whether every id and key is that of its URL and caption; both were compared with the bytes already."""
    redacted = pc.match_substring_regex(kept["caption"], REDACTIONS.pattern)
    columns = (*(kept[name] for name in ("sample_id", "key", "url", "caption")), redacted)
    return np.array(
        [
            None not in (url, caption) and stated == key == (key if is_redacted else url_sample_id(url, caption))
            for stated, key, url, caption, is_redacted in zip(*(column.to_pylist() for column in columns), strict=True)
        ]
    )


def _equal(stated: pa.ChunkedArray, found: pa.Array | pa.ChunkedArray) -> Mask:
    """Entry by entry; nothing equals a null."""
    return np.array(pc.fill_null(pc.equal(stated, found), False))


def drops_are_sound(table: pa.Table) -> bool:
    """Whether every row that is not kept is dropped for a reason of the closed list."""
    try:
        kept, dropped = (pc.fill_null(pc.equal(table["decision"], word), False) for word in ("kept", "dropped"))
        counted = pc.and_(dropped, pc.is_in(table["reason"], pa.array(list(REASONS), table["reason"].type)))
        return bool(pc.all(pc.or_(kept, counted), min_count=0).as_py())
    except pa.ArrowException:  # columns of another type
        return False
