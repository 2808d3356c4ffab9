"""Whether every value in a table of built samples is what its tar says: all columns at once.

What holds is not looked at again; where anything differs, the shard is gone through row by row (`rederive.py`), and
that names it. Unlike a curated shard, whose rows may rightly differ from their records, a true shard of built samples
agrees as a whole, so there is nothing to tell sample by sample here.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from owl3.cards.layout import LaidOut, NotLaidOut, Sizes
from owl3.cards.pictures import PICTURES, size_and_format
from owl3.cost import Cost
from owl3.errors import InputError
from owl3.media import MediaError
from owl3.samples import Sample, built_sample_id
from owl3.shards import SAMPLE_INDEX
from owl3.storage import stays_inside

_PICTURES = {extension.encode() for extension in PICTURES}
_OPEN_TARS = 64
"""Of parents whose pictures are referred to; opening one takes as long as reading a small picture."""

Measured = tuple[str, int, int]
"""sha256, width and height of a medium."""


class Counter(Protocol):
    """Counts a sample's tokens and tiles as its builder did."""

    def cost(self, sample: Sample, sizes: Sequence[tuple[int, int]]) -> Cost:
        """What a sample costs whose media have these widths and heights."""


@dataclass(frozen=True)
class Agreed:
    """How much was read of a shard that is as its table says."""

    tar_sha256: str
    num_samples: int
    num_members: int
    num_bytes: int


def agreed(table: pa.Table, tar: Path, workspace: Path, counter: Counter | None) -> Agreed | None:
    """Read a tar once and derive all columns of its table; None where any value is another, or nothing to be had."""
    if not set(table.column_names) >= set(SAMPLE_INDEX.names):
        return None
    try:
        kept = table.filter(pc.equal(table["decision"], "kept")).combine_chunks()
        stated = _Stated(kept.take(pc.sort_indices(kept["position"])), tar)
        members = LaidOut(tar, stated.sizes)
        records, media = _read(members, stated, workspace)
        samples = [Sample.model_validate_json(record) for record in records]
        holds = (
            _names_hold(members.names, stated)
            and _media_hold(samples, media, members, stated)
            and _columns_hold(samples, members, stated)
            and (counter is None or _costs_hold(samples, media, stated, counter))
        )
    except (NotLaidOut, MediaError, InputError, pa.ArrowException, OSError, OverflowError, TypeError, ValueError):
        return None  # going through the rows will say what is wrong
    if not holds:
        return None
    return Agreed(members.sha256, len(samples), len(members.names), int(members.sizes.sum()))


class _Stated:
    """The kept rows in the order of the tar, with the media of all in one array.

    Attributes:
        owner, number: Which sample a medium belongs to, and which of that one's media it is.
        is_own: Whether it lies in the sample's own tar.
        records_at, media_at: Which of the tar's members the records and the own media are: behind each record come the
            sample's own media.
        sizes: Of all members.
    """

    def __init__(self, kept: pa.Table, tar: Path) -> None:
        self.kept = kept
        self.shard = tar.stem
        lists = kept["media"].combine_chunks()
        flat = pc.list_flatten(lists)
        self.media: dict[str, pa.Array] = {field.name: flat.field(field.name) for field in flat.type}
        if any(self.media[name].null_count for name in ("path", "offset", "bytes")) or kept["json_bytes"].null_count:
            raise NotLaidOut
        self.owner: Sizes = pc.list_parent_indices(lists).to_numpy()
        self.counts: Sizes = pc.fill_null(pc.list_value_length(lists), 0).to_numpy()
        self.number: Sizes = np.arange(len(self.owner)) - (np.cumsum(self.counts) - self.counts)[self.owner]
        self.is_own = np.asarray(pc.equal(self.media["path"], "/".join(tar.parts[-3:])))
        owner = self.owner[self.is_own]
        self.records_at = np.arange(len(kept)) + np.searchsorted(owner, np.arange(len(kept)))
        self.media_at = np.arange(len(owner)) + owner + 1
        self.sizes: Sizes = np.empty(len(kept) + len(owner), np.int64)
        self.sizes[self.records_at] = kept["json_bytes"].to_numpy()
        self.sizes[self.media_at] = self.media["bytes"].to_numpy()[self.is_own]


def _read(members: LaidOut, stated: _Stated, workspace: Path) -> tuple[list[bytes], list[Measured]]:
    """Records, and media in the order of the table: own ones from the tar, the others from where they lie."""
    records: list[bytes] = []
    own: list[Measured] = []
    is_record = np.zeros(len(members.sizes), np.bool_)
    is_record[stated.records_at] = True
    for record, data in zip(is_record.tolist(), chain.from_iterable(members), strict=True):
        if record:
            records.append(bytes(data))
        else:
            own.append(_measure(data))
    others = [stated.media[name].filter(~stated.is_own).to_pylist() for name in ("path", "offset", "bytes")]
    with _Tars(workspace) as tars:
        referred = [_measure(tars.read(*place)) for place in zip(*others, strict=True)]
    sources = iter(referred), iter(own)
    return records, [next(sources[is_own]) for is_own in stated.is_own.tolist()]


def _measure(data: bytes | memoryview) -> Measured:
    width, height, _ = size_and_format(data)
    return hashlib.sha256(data).hexdigest(), width, height


class _Tars:
    """Tars of parents, each opened once."""

    def __init__(self, workspace: Path) -> None:
        self._workspace = workspace
        self._open: dict[str, int] = {}
        self._stack = ExitStack()

    def __enter__(self) -> _Tars:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, path: str, offset: int, num_bytes: int) -> bytes:
        """Read a medium; what is asked for comes from a table that anybody may have written.

        Raises:
            InputError: there is none at that place.
        """
        if path not in self._open:
            if len(self._open) == _OPEN_TARS:
                self._stack.close()
                self._open.clear()
            if not stays_inside(path):
                raise InputError(f"{path}: leads out of the workspace")
            self._open[path] = os.open(self._workspace / path, os.O_RDONLY)
            self._stack.callback(os.close, self._open[path])
        if not 0 <= offset <= offset + num_bytes <= os.fstat(self._open[path]).st_size:
            raise InputError(f"{path}: ends before a medium at {offset} does")
        return os.pread(self._open[path], num_bytes, offset)


def _names_hold(names: Sequence[bytes], stated: _Stated) -> bool:
    """Whether every member is named after its sample: records as such, media by their numbers."""
    keys = stated.kept["key"].cast(pa.binary()).to_pylist()
    own = zip(stated.owner[stated.is_own].tolist(), stated.number[stated.is_own].tolist(), strict=True)
    parts = [names[at].rpartition(b".") for at in stated.media_at.tolist()]
    return (
        len(set(keys)) == len(keys)
        and not any(b"." in key for key in keys)
        and [names[at] for at in stated.records_at.tolist()] == [key + b".json" for key in keys]
        and [part[0] for part in parts] == [b"%s.%d" % (keys[owner], number) for owner, number in own]
        and {part[2] for part in parts} <= _PICTURES
    )


def _media_hold(samples: Sequence[Sample], media: Sequence[Measured], members: LaidOut, stated: _Stated) -> bool:
    """Whether number, hash, size, time and place of all media are as stated."""
    times = [segment.time_s for sample in samples for segment in sample.segments if segment.medium is not None]
    offsets = members.offsets[stated.media_at]
    return (
        stated.counts.tolist() == [sample.num_media for sample in samples]
        and all(
            _equal(stated.media[name], [entry[number] for entry in media])
            for number, name in enumerate(("sha256", "width", "height"))
        )
        and _equal(stated.media["time_s"], times)
        and np.array_equal(stated.media["offset"].to_numpy()[stated.is_own], offsets)
    )


def _columns_hold(samples: Sequence[Sample], members: LaidOut, stated: _Stated) -> bool:
    """Whether all columns but those of media and costs are as stated; names were compared with keys already."""
    fields = ("kind", "builder", "builder_version", "seed", "source", "licence")
    columns: dict[str, Sequence[Any]] = {name: [getattr(sample, name) for sample in samples] for name in fields}
    columns |= {
        "sample_id": [sample.id for sample in samples],
        "key": [sample.id for sample in samples],
        "shard": [stated.shard] * len(samples),
        "position": range(len(samples)),
        "parents": [sample.parents for sample in samples],
        "images": [sample.num_media for sample in samples],
        "json_offset": members.offsets[stated.records_at],
    }
    return all(_equal(stated.kept[name], values) for name, values in columns.items()) and all(
        sample.id == derived_id(sample) for sample in samples
    )


def derived_id(sample: Sample) -> str:
    """The id of a built sample, hashed again from its parts."""
    extra = str(sample.meta.get("extra", ""))
    return built_sample_id(sample.builder, sample.builder_version, sample.seed, sample.parents, extra)


def _costs_hold(samples: Sequence[Sample], media: Sequence[Measured], stated: _Stated, counter: Counter) -> bool:
    """Whether tokens and tiles are as the builder counted them."""
    sizes = iter([(width, height) for _, width, height in media])
    costs = [counter.cost(sample, [next(sizes) for _ in range(sample.num_media)]) for sample in samples]
    return all(_equal(stated.kept[name], [getattr(cost, name) for cost in costs]) for name in Cost.__slots__)


def _equal(stated: pa.ChunkedArray | pa.Array, values: Any) -> bool:
    """Whether a column holds these values, nulls where they are None."""
    column = stated.combine_chunks() if isinstance(stated, pa.ChunkedArray) else stated
    return bool(column.equals(pa.array(values, column.type)))
