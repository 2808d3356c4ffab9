"""Read one sample's bytes from its tar, by place: one read, no scan, no index table in memory.

The members of a sample are adjacent, so a plan keeps only where each sample begins. The tar's own headers say the rest,
and prove on every read that this is still the shard that was planned.
"""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import ValidationError

from owl3.data.ranges import LocalTars, Tars, stale
from owl3.data.split import media_of, part_of
from owl3.errors import InputError
from owl3.planfile import TAR_BLOCK, Place, Plan
from owl3.sampleindex import kept_rows
from owl3.samples import Sample
from owl3.shards import read_member

_SHARDS_IN_MEMORY = 128
"""Of how many shards of references the places are kept: a shuffled order goes back and forth between all of them. As
Arrow columns they take about 150 bytes per medium."""


@dataclass(frozen=True, slots=True)
class StoredSample:
    """A sample as it lies in its tar."""

    sample: Sample
    media: list[bytes]
    where: str
    """`samples/NAME/00000.tar:KEY`, for messages and drop records."""


class SampleReader:
    """Random access to the samples of a plan. Each worker process has its own."""

    def __init__(self, plan: Plan, workspace: Path, tars: Tars | None = None) -> None:
        self.plan = plan
        self.workspace = workspace
        self._tars: Tars = tars or LocalTars(workspace)
        self._media_of_shard = lru_cache(maxsize=_SHARDS_IN_MEMORY)(self._read_media_places)
        self._tar = lru_cache(maxsize=1024)(self._find_tar)

    def read(self, position: int) -> StoredSample:
        """Read a sample and its media.

        Raises:
            StaleError: the shard is not the one that was planned.
            InputError: the shard is missing or damaged.
        """
        place = self.plan.place(position)
        path, relative = self._tar(place.dataset, place.shard)
        data = self._tars.read(relative, place.start, place.end, place.shard_bytes)
        members = _parse_members(data, path, place.start)
        (name, text), *media = members.items()
        key = name.partition(".")[0]
        if name != f"{key}.json":
            raise stale(path, f"{name} stands where a sample's json should")
        try:
            sample = Sample.model_validate_json(text)
        except ValidationError as error:
            raise InputError(f"{path}: {name} is not a sample: {error.errors()[0]['msg']}; build it again") from error
        if sample.id != key:
            raise stale(path, f"{name} holds the sample {sample.id}")
        where = f"samples/{self.plan.header.datasets[place.dataset].name}/{path.name}:{key}"
        data_of_media = self._media(sample, media, self.plan.base_of(position), place)
        part = self.plan.part_of(position)
        if part is not None:
            start, end = int(part["start"]), int(part["end"])
            data_of_media = [data_of_media[number] for number in media_of(sample, start, end)]
            sample = part_of(sample, start, end)
        return StoredSample(sample, data_of_media, where)

    def _media(self, sample: Sample, members: list[tuple[str, bytes]], position: int, place: Place) -> list[bytes]:
        """The media in order: beside the json or, where a builder only referred to them, in the parents' tars."""
        if len(members) == sample.num_media:
            for number, (name, _) in enumerate(members):
                if not name.startswith(f"{sample.id}.{number}."):
                    raise stale(self._shard_path(place, ".tar"), f"{name} stands where medium {number} should")
            return [data for _, data in members]
        dataset = self.plan.header.datasets[place.dataset]
        number = position - dataset.offset - dataset.shards[place.shard].first
        places = self._media_of_shard(self._shard_path(place, ".parquet"))[number].as_py()
        if len(places) != sample.num_media:
            raise stale(self._shard_path(place, ".tar"), f"{sample.id} has {len(places)} media of {sample.num_media}")
        return [self._parents_medium(p) for p in places]

    def _parents_medium(self, place: dict[str, Any]) -> bytes:
        """Bytes that lie in another artifact's tar; only their hash can prove that they are still the same."""
        path = self.workspace / place["path"]
        if not path.is_file():
            raise InputError(f"{path}: missing; samples that refer to its pictures can't be read without it")
        data = read_member(path, place["offset"], place["bytes"])
        if hashlib.sha256(data).hexdigest() != place["sha256"]:
            raise stale(path, f"the medium at byte {place['offset']} is not the one that samples refer to")
        return data

    def _read_media_places(self, index: Path) -> pa.ChunkedArray:
        return kept_rows(index, ["media"])["media"]

    def _shard_path(self, place: Place, suffix: str) -> Path:
        return self._tar(place.dataset, place.shard)[0].with_suffix(suffix)

    def _find_tar(self, dataset: int, shard: int) -> tuple[Path, str]:
        """A shard's tar, and its path relative to the workspace."""
        planned = self.plan.header.datasets[dataset]
        relative = f"samples/{planned.name}/{planned.shards[shard].name}.tar"
        return self.workspace / relative, relative

    def close(self) -> None:
        """Let go of files and connections."""
        self._tars.close()


def _parse_members(data: bytes, path: Path, start: int) -> dict[str, bytes]:
    """Walk over USTAR headers: {name: bytes} up to the end of the range or the tar's closing zeros."""
    members: dict[str, bytes] = {}
    offset = 0
    while offset + TAR_BLOCK <= len(data):
        header = data[offset : offset + TAR_BLOCK]
        if not header[0]:
            break
        if header[257:262] != b"ustar":
            raise stale(path, f"no tar member begins at byte {start + offset}")
        name = header[:100].rstrip(b"\0").decode("ascii", "replace")
        size = _octal(header[124:136])
        if size < 0:
            raise stale(path, f"the header of {name} at byte {start + offset} has no size")
        body = offset + TAR_BLOCK
        if body + size > len(data):
            raise stale(path, f"{name} reaches into the next sample")
        members[name] = data[body : body + size]
        offset = body + (size + TAR_BLOCK - 1) // TAR_BLOCK * TAR_BLOCK
    if not members:
        raise stale(path, f"no tar member begins at byte {start}")
    return members


def _octal(field: bytes) -> int:
    """A number of a tar header; -1 when it is none."""
    try:
        return max(-1, int(field.rstrip(b"\0 ") or b"0", 8))
    except ValueError:
        return -1
