"""A shard gone through row by row: what its table says beside what its tar says, and where they differ.

What a row should be is the business of `rederive.py`; here it is read, compared and named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from owl3.cards.findings import Check, failed, first_line
from owl3.cards.tarpass import TarPass
from owl3.errors import InputError
from owl3.ledger import REASONS
from owl3.media import MediaError
from owl3.samples import Sample
from owl3.shards import Member, read_member

Row = dict[str, Any]
Derive = Callable[[str, "Found", Row], Row]
"""From a key, its members and what is stated to the row as derived."""


_UNREADABLE = (
    InputError,
    MediaError,
    ArithmeticError,
    AttributeError,
    LookupError,
    OSError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What bytes and rows made up by somebody else can raise; each is told as what it is: a row that can't be derived."""

_UNFIT = (pa.ArrowException, OverflowError, TypeError, ValueError)
"""What Arrow raises for a value that is not of a column's type."""


@dataclass
class Derived:
    """Rows of one shard as derived, and where the table says something else.

    Attributes:
        table: What holds the derived rows: the shard's own table, where every value in it was found to be true.
        rows: The derived rows, where that is not so, and
        schema: the table's; None when it could not be read.
        num_read: Kept samples whose bytes were read.
        tar_sha256: Of the whole tar, when it was read from end to end.
    """

    table: Path | None = None
    rows: list[Row] = field(default_factory=list)
    schema: pa.Schema | None = None
    problems: list[Check] = field(default_factory=list)
    num_rows: int = 0
    num_read: int = 0
    num_members: int = 0
    num_bytes: int = 0
    tar_sha256: str = ""


@dataclass
class Found:
    """The members of one key in a tar.

    Attributes:
        position: How many keys stand before it; None where they were not read.
    """

    members: dict[str, tuple[Member, bytes]] = field(default_factory=dict)
    position: int | None = None

    def data(self, extension: str) -> bytes | None:
        """The bytes of KEY.extension."""
        entry = self.members.get(extension)
        return entry[1] if entry else None

    def sample(self) -> Sample:
        """KEY.json as a sample.

        Raises:
            InputError: there is none.
        """
        record = self.data("json")
        if record is None:
            raise InputError("no KEY.json")
        return Sample.model_validate_json(record)


def keys_of(tar: Path, derived: Derived) -> Iterator[tuple[str, Found]]:
    """Read a tar front to back, key by key; a damaged end is a problem, not an exception."""
    key, found = "", Found(position=0)
    members = TarPass(tar)
    try:
        for name, offset, data in members:
            derived.num_members += 1
            derived.num_bytes += len(data)
            stem, _, extension = name.partition(".")
            if stem != key and found.members:
                yield key, found
                found = Found(position=(found.position or 0) + 1)
            key = stem
            if extension in found.members:
                derived.problems.append(failed("rows", f"{tar.name} {name}", "one member", "two of one name"))
            found.members[extension] = (Member(name, offset, len(data)), bytes(data))
    except InputError as error:
        derived.problems.append(failed("rows", tar.name, "a whole tar", str(error)))
    derived.tar_sha256 = members.sha256
    if found.members:
        yield key, found


def read_stated(folder: Path, name: str, derived: Derived) -> pa.Table | None:
    """The shard's table; one that can't be read is a problem, not an exception."""
    path = folder / f"{name}.parquet"
    try:
        with pq.ParquetFile(path) as file:  # `read_table` would bring pandas in, which takes longer than many shards
            table = file.read()
        table.validate(full=True)
        missing = {"key", "decision", "reason", "sample_id"} - set(table.column_names)
        if missing:
            raise InputError(f"no column {', '.join(sorted(missing))}")
    except (InputError, OSError, pa.ArrowException) as error:
        derived.problems.append(failed("rows", f"{folder.name}/{name}.parquet", "a readable table", first_line(error)))
        return None
    derived.schema = table.schema
    return table


def derive_rows(
    folder: Path,
    name: str,
    derive: Derive,
    table: pa.Table,
    derived: Derived,
    *,
    only: frozenset[str] | None,
    places: Mapping[str, Sequence[Member]] | None = None,
) -> Derived:
    """Go through a shard row by row, and name what differs.

    Args:
        only: Keys to derive from bytes; other kept rows are taken as stated. None: all, in the order of the tar.
        places: Where the members of these lie, by key; by default where the table says.
    """
    tar, label = folder / f"{name}.tar", f"{folder.name}/{name}"
    stated_rows: list[Row] = table.to_pylist()
    kept: dict[str, Row] = {}
    for row in stated_rows:
        if row["decision"] == "kept":
            if row["key"] in kept:
                derived.problems.append(failed("rows", f"{label} {row['key']}", "one row", "two rows of one key"))
            kept[row["key"]] = row
        else:
            derived.problems += _check_drop(label, row)
            derived.rows.append(row)
    order: list[str] = []
    for key, read in _members(tar, kept, derived, only, places):
        order.append(key)
        stated = kept.pop(key, None)
        if stated is None:
            derived.problems.append(failed("rows", f"{label} {key}", "no such sample", "members in the tar"))
            continue
        try:
            row = _in_single_precision(derive(key, read(), stated), table.schema)
        except _UNREADABLE as error:
            derived.problems.append(failed("rows", f"{label} {key}", "a readable sample", first_line(error)))
            continue
        derived.problems += _differences(label, key, stated, row)
        derived.rows.append(row)
    if only is None:
        derived.problems += [failed("rows", f"{label} {key}", "kept", "not in the tar") for key in kept]
        stated_order = [row["key"] for row in sorted(_kept(stated_rows), key=lambda row: row.get("position") or 0)]
        if not kept and order != stated_order and len(order) == len(stated_order):
            derived.problems.append(failed("rows", label, "samples in the order of their positions", "another order"))
    else:
        derived.rows += kept.values()
    derived.num_rows = len(derived.rows)
    derived.num_read = len(order)
    return derived


def _kept(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("decision") == "kept"]


def _in_single_precision(row: Row, schema: pa.Schema) -> Row:
    """JSON holds what was measured; the table holds some of it in single precision."""
    singles = [f.name for f in schema if f.type == pa.float32() and isinstance(row.get(f.name), int | float)]
    return row | {single: float(np.float32(row[single])) for single in singles}


def as_table(rows: list[Row], schema: pa.Schema) -> pa.Table:
    """Derived rows as a table; what a column can't hold was named as a difference and is left empty."""
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except _UNFIT:
        return pa.Table.from_pylist([_fitting(row, schema) for row in rows], schema=schema)


def _fitting(row: Row, schema: pa.Schema) -> Row:
    fitting: Row = {}
    for column in schema:
        try:
            fitting[column.name] = pa.scalar(row.get(column.name), column.type)
        except _UNFIT:
            fitting[column.name] = None
    return fitting


def _members(
    tar: Path,
    kept: Mapping[str, Row],
    derived: Derived,
    only: frozenset[str] | None,
    places: Mapping[str, Sequence[Member]] | None,
) -> Iterator[tuple[str, Callable[[], Found]]]:
    """All keys of a tar, or the chosen ones by their place; each with what reads its members."""
    if only is not None:
        for key in sorted(only & kept.keys(), key=str):  # a table made up by somebody may hold none
            yield key, partial(_by_place, tar, kept[key], None if places is None else places[key], derived)
    elif tar.is_file():
        for key, found in keys_of(tar, derived):
            yield key, partial(_as_read, found)


def _as_read(found: Found) -> Found:
    return found


def _by_place(tar: Path, row: Row, members: Sequence[Member] | None, derived: Derived) -> Found:
    found = Found()
    for member in members if members is not None else _stated_members(tar, row):
        extension = member.name.partition(".")[2]
        found.members[extension] = (member, read_member(tar, member.offset, member.num_bytes))
        if members is None:
            derived.num_members += 1
            derived.num_bytes += member.num_bytes
    return found


def _stated_members(tar: Path, row: Row) -> list[Member]:
    """Where a row says that its members lie."""
    key = row["key"]
    members = [Member(f"{key}.json", row["json_offset"], row["json_bytes"])]
    if row.get("media_offset") is not None:
        members.append(Member(f"{key}.{_extension(row)}", row["media_offset"], row["media_bytes"]))
    return members + [
        Member(f"{key}.{number}.jpg", medium["offset"], medium["bytes"])
        for number, medium in enumerate(row.get("media") or [])
        if Path(medium["path"]).parts == tar.parts[-3:]  # of another artifact's tar, by `samples` itself
    ]


def _extension(row: Row) -> str:
    return str(row.get("extension") or "jpg")


def _differences(label: str, key: str, stated: Row, row: Row) -> list[Check]:
    return [
        failed("rows", f"{label} {key} {name}", stated.get(name), value)
        for name, value in row.items()
        if stated.get(name) != value and name in stated
    ]


def _check_drop(label: str, row: Row) -> list[Check]:
    """A row that is not kept must be dropped, for a reason of the closed list."""
    subject = f"{label} {row.get('sample_id')}"
    if row.get("decision") != "dropped":
        return [failed("rows", f"{subject} decision", row.get("decision"), "neither kept nor dropped")]
    if row.get("reason") not in REASONS:
        return [failed("rows", f"{subject} reason", row.get("reason"), "not on the closed list")]
    return []
