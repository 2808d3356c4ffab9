"""Which samples of a curated shard need a second look: all columns at once, where `rederive.py` goes row by row.

A tar is read once (`tarpass.py`); what its bytes say is set against the table column by column. A sample that agrees in
every value is as its row says, and is not looked at again. Any other, and every sample of a shard that is not laid out
the usual way, is derived by itself, and that names what differs. So this may be stricter than `rederive.py`, never
milder.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
from numpy.typing import NDArray

from owl3.cards.pictures import CLIPS, PICTURES, size_and_format
from owl3.cards.redaction import is_redacted
from owl3.cards.tarpass import TarPass
from owl3.errors import InputError
from owl3.ledger import REASONS
from owl3.media import MediaError
from owl3.samples import url_sample_id
from owl3.shards import Member

Mask = NDArray[np.bool_]

_PLACES = ("json_offset", "json_bytes", "media_offset", "media_bytes")
_NO_SIZE = -1
"""Width and height of what should be a picture and is none: no table says so."""


@dataclass
class Contents:
    """What one pass over a tar found: members in order, and what is needed of their bytes.

    Attributes:
        tar_sha256: Of the whole file.
        problem: Why the tar could not be read to its end.
        is_plain: Whether it could be read without `tarfile`.
        records, texts: The bytes of all KEY.json and KEY.txt.
        media: Hash, width and height of all others; no width for clips, and none that a table could hold for what
            should be a picture and is none.
    """

    tar_sha256: str = ""
    problem: str = ""
    is_plain: bool = True
    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    records: list[bytes] = field(default_factory=list)
    texts: list[bytes] = field(default_factory=list)
    media: list[tuple[str, int | None, int | None]] = field(default_factory=list)

    def keys(self) -> list[str] | None:
        """The key of every sample; None unless each is one picture or clip, one text and one record, in this order."""
        keys, extensions = [], set()
        for name in self.names[::3]:
            key, _, extension = name.partition(".")
            keys.append(key)
            extensions.add(extension)
        usual = (
            self.is_plain
            and extensions <= {*PICTURES, *CLIPS}
            and self.names[1::3] == [f"{key}.txt" for key in keys]
            and self.names[2::3] == [f"{key}.json" for key in keys]
        )
        return keys if usual else None

    def members_of(self, keys: Collection[str]) -> dict[str, list[Member]]:
        """Where the members of some samples lie."""
        found: dict[str, list[Member]] = {}
        for place in zip(self.names, self.offsets, self.sizes, strict=True):
            key = place[0].partition(".")[0]
            if key in keys:
                found.setdefault(key, []).append(Member(*place))
        return found


def read_contents(tar: Path) -> Contents:
    """Read a tar once, keeping texts, records, hashes and sizes; pictures are not kept."""
    found, members = Contents(), TarPass(tar)
    try:
        for name, offset, data in members:
            found.names.append(name)
            found.offsets.append(offset)
            found.sizes.append(len(data))
            if name.endswith(".json"):
                found.records.append(bytes(data))
            elif name.endswith(".txt"):
                found.texts.append(bytes(data))
            else:
                found.media.append((hashlib.sha256(data).hexdigest(), *_shape(name, data)))
    except InputError as error:
        found.problem = str(error)
    found.tar_sha256 = members.sha256
    found.is_plain = members.is_plain and not found.problem
    return found


def _shape(name: str, data: memoryview) -> tuple[int | None, int | None]:
    if name.rpartition(".")[2] in CLIPS:
        return None, None
    try:
        width, height, _ = size_and_format(data)
    except MediaError:
        return _NO_SIZE, _NO_SIZE
    return width, height


def to_look_at(table: pa.Table, found: Contents) -> frozenset[str] | None:
    """Keys of the kept samples that do not agree in every value; None when the shard has to be read row by row."""
    keys = found.keys()
    if keys is None or not {"key", "decision", "sample_id", "url", "caption", "position"} <= set(table.column_names):
        return None
    try:
        kept = table.filter(pc.equal(table["decision"], "kept")).combine_chunks()
        kept = kept.take(pc.sort_indices(kept["position"]))
        if len(set(keys)) != len(keys) or kept["key"].to_pylist() != keys:
            return None
        if not keys:
            return frozenset()
        agrees = _records_agree(kept, found) & _bytes_agree(kept, found) & _ids_agree(kept)
    except (pa.ArrowException, UnicodeDecodeError):  # a column of another type, a record that is none: it will be named
        return None
    return frozenset(key for key, same in zip(keys, agrees.tolist(), strict=True) if not same)


def _records_agree(kept: pa.Table, found: Contents) -> Mask:
    """Whether every value in KEY.json is the row's.

    Raises:
        pa.ArrowException: a record is no JSON object, or has a field or a type that the table has not, or
        UnicodeDecodeError: it is not UTF-8.
    """
    lines = b"\n".join(found.records)
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


def _bytes_agree(kept: pa.Table, found: Contents) -> Mask:
    """Whether hash, size, place and text of every sample are the row's, of those columns that the table has."""
    offsets, sizes = np.array(found.offsets), np.array(found.sizes)
    sha256, widths, heights = zip(*found.media, strict=True)
    columns = {
        "sha256": pa.array(sha256),
        "bytes": pa.array(sizes[::3]),
        "media_offset": pa.array(offsets[::3]),
        "media_bytes": pa.array(sizes[::3]),
        "json_offset": pa.array(offsets[2::3]),
        "json_bytes": pa.array(sizes[2::3]),
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
    """Whether every id is that of its URL and caption; both were compared with the bytes already."""
    rows = zip(*(kept[name].to_pylist() for name in ("sample_id", "key", "url", "caption")), strict=True)
    return np.array(
        [
            None not in (url, caption) and stated == (key if is_redacted(caption) else url_sample_id(url, caption))
            for stated, key, url, caption in rows
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
