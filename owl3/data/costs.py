"""What a plan must know of every sample: its id, its place, and what it costs. Read from the sample indexes alone.

36 bytes per sample in memory: 41 million samples are planned in 4 GB, without opening a tar.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.data.mixture import DatasetConfig, chosen
from owl3.errors import ConfigError, InputError
from owl3.idhash import U64, id_words, mix64
from owl3.manifest import Manifest
from owl3.planfile import PART_DTYPE, TAR_BLOCK, PlannedShard
from owl3.sampleindex import kept_rows
from owl3.shards import SAMPLE_INDEX

PromptStyle = Literal["chat", "plain"]

_COLUMNS = {"chat": ("text_tokens", "trained_tokens"), "plain": ("plain_tokens", "plain_trained_tokens")}
_READERS = 4
"""Threads that read indexes; Arrow decodes outside Python's lock."""


@dataclass
class CostTable:
    """The kept samples of one dataset, shards in name order."""

    name: str
    ids: U64
    tokens: npt.NDArray[np.int32]
    trained: npt.NDArray[np.int32]
    images: npt.NDArray[np.int32]
    tiles: npt.NDArray[np.int32]
    block: npt.NDArray[np.uint32]
    shards: tuple[PlannedShard, ...]
    purged_ids: U64
    """Samples whose bytes were taken out of the artifact. They are never drawn, but still count in its size, so that a
    plan made after the purge equals the one before it up to the first tainted step."""
    purged_tokens: npt.NDArray[np.int32]
    purged_images: npt.NDArray[np.int32]
    parts: npt.NDArray[np.void] = field(default_factory=lambda: np.zeros(0, dtype=PART_DTYPE))
    """Parts of split samples; they are the last rows of all columns, with positions counted within this dataset."""

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_samples(self) -> int:
        """Rows that are whole samples."""
        return len(self) - len(self.parts)

    @property
    def keys(self) -> U64:
        """The 64 bits that shuffling goes by: of each id, and of where a part begins."""
        if not len(self.parts):
            return self.ids[:, 0]
        starts: U64 = self.parts["start"].astype(np.uint64) + np.uint64(1)
        of_parts = mix64(self.ids[self.parts["position"], 0] ^ mix64(starts))
        return np.concatenate([self.ids[: self.num_samples, 0], of_parts])

    def shard_numbers(self) -> npt.NDArray[np.int64]:
        """The number of the shard that each row lies in."""
        firsts = np.array([shard.first for shard in self.shards], dtype=np.int64)
        numbers = np.repeat(np.arange(len(firsts)), np.diff(firsts, append=self.num_samples))
        return np.concatenate([numbers, numbers[self.parts["position"]]]) if len(self.parts) else numbers

    def with_parts(self, parts: npt.NDArray[np.void]) -> "CostTable":
        """The same table with the parts of its split samples as further rows."""
        base = parts["position"]
        return replace(
            self,
            ids=np.concatenate([self.ids, self.ids[base]]),
            tokens=np.concatenate([self.tokens, parts["tokens"]]),
            trained=np.concatenate([self.trained, parts["trained"]]),
            images=np.concatenate([self.images, parts["images"]]),
            tiles=np.concatenate([self.tiles, parts["images"]]),
            block=np.concatenate([self.block, self.block[base]]),
            parts=parts,
        )


def join_tables(tables: Sequence[CostTable]) -> CostTable:
    """Put all tables of a mixture end to end, and let them go on as views of the whole: nothing is held twice."""
    whole: dict[str, Any] = {}
    for column in ("ids", "tokens", "trained", "images", "tiles", "block"):
        whole[column] = np.concatenate([getattr(table, column) for table in tables])
        first = 0
        for table in tables:
            size = len(getattr(table, column))
            setattr(table, column, whole[column][first : first + size])
            first += size
    none = np.zeros(0, np.int32)
    no_ids = np.zeros((0, 2), np.uint64)
    return CostTable("", shards=(), purged_ids=no_ids, purged_tokens=none, purged_images=none, **whole)


def read_costs(
    workspace: Path, dataset: DatasetConfig, manifest: Manifest, prompt_style: PromptStyle, seed: int
) -> CostTable:
    """Read the indexes of one samples artifact.

    Raises:
        InputError: an index is missing or does not hold the costs that this prompt style needs.
        ConfigError: pictures are to be cut in plain style, which no release was trained on.
    """
    if dataset.cut and prompt_style == "plain":
        raise ConfigError(f"mixture: dataset {dataset.name!r} is to be cut, but plain style has no words for tiles")
    folder = workspace / "samples" / dataset.name
    tar_bytes = {entry.path[:-4]: entry.bytes for entry in manifest.files if entry.path.endswith(".tar")}
    names = sorted(tar_bytes)
    for name in names:
        size = (folder / f"{name}.tar").stat().st_size if (folder / f"{name}.tar").is_file() else -1
        if size != tar_bytes[name]:
            found = "is missing" if size < 0 else f"has {size} bytes"
            raise InputError(f"{folder / name}.tar: {found}, its manifest says {tar_bytes[name]}; build it again")

    def read(name: str) -> _Part:
        return _read_part(folder / f"{name}.parquet", dataset, prompt_style, seed)

    with ThreadPoolExecutor(_READERS) as pool:
        parts = list(pool.map(read, names))
    shards, first = [], 0
    for name, part in zip(names, parts, strict=True):
        if len(part.tokens):
            shards.append(PlannedShard(name=name, first=first, bytes=tar_bytes[name]))
        first += len(part.tokens)
    purged = _purged_rows([folder / f"{name}.parquet" for name in names if manifest.counts.dropped.get("tombstoned")])
    return CostTable(
        name=dataset.name,
        ids=np.concatenate([part.ids for part in parts]) if parts else np.zeros((0, 2), np.uint64),
        tokens=_joined(parts, "tokens", np.int32),
        trained=_joined(parts, "trained", np.int32),
        images=_joined(parts, "images", np.int32),
        tiles=_joined(parts, "tiles", np.int32),
        block=_joined(parts, "block", np.uint32),
        shards=tuple(shards),
        purged_ids=id_words(purged["sample_id"]),
        purged_tokens=_zero_for_null(purged[_COLUMNS[prompt_style][0]]),
        purged_images=_zero_for_null(purged["images"]),
    )


@dataclass
class _Part:
    """One shard's share of a `CostTable`."""

    ids: U64
    tokens: npt.NDArray[np.int32]
    trained: npt.NDArray[np.int32]
    images: npt.NDArray[np.int32]
    tiles: npt.NDArray[np.int32]
    block: npt.NDArray[np.uint32]


def _read_part(path: Path, dataset: DatasetConfig, prompt_style: PromptStyle, seed: int) -> _Part:
    tokens_name, trained_name = _COLUMNS[prompt_style]
    for_cutting = ["cut_tokens", "tiles"] if dataset.cut else []
    table = kept_rows(path, ["sample_id", tokens_name, trained_name, "images", "json_offset", *for_cutting])
    ids = id_words(table["sample_id"])
    tokens, images = _numbers(table, tokens_name, path), _numbers(table, "images", path)
    offsets = table["json_offset"].to_numpy()
    if np.any(offsets % TAR_BLOCK) or np.any(offsets[1:] <= offsets[:-1]):
        raise InputError(f"{path}: offsets are not those of a tar in order; the index is stale, build it again")
    tiles = images
    if dataset.cut:
        cut = is_cut(ids, images, seed, dataset.cut) & table["cut_tokens"].is_valid().to_numpy()
        tokens = np.where(cut, table["cut_tokens"].fill_null(0).to_numpy(), tokens).astype(np.int32)
        tiles = np.where(cut, _sums(table["tiles"]), images).astype(np.int32)
    # json_offset is where the first member's bytes begin; its header stands one block before.
    block = (offsets // TAR_BLOCK - 1).astype(np.uint32)
    return _Part(ids, tokens, _numbers(table, trained_name, path), images, tiles, block)


def _purged_rows(indexes: Sequence[Path]) -> pa.Table:
    """Rows of samples that a purge turned into drops."""
    columns = ["sample_id", "reason", "images", *(tokens for tokens, _ in _COLUMNS.values())]
    schema = pa.schema([SAMPLE_INDEX.field(column) for column in columns])
    tables = [pq.read_table(path, columns=columns) for path in indexes]
    whole = pa.concat_tables([schema.empty_table(), *(table.select(columns).cast(schema) for table in tables)])
    return whole.filter(pc.equal(whole["reason"], "tombstoned"))


def _zero_for_null(column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    return np.asarray(column.fill_null(0).to_numpy(), dtype=np.int32)


def is_cut(ids: U64, images: npt.NDArray[np.integer[Any]], seed: int, share: float) -> npt.NDArray[np.bool_]:
    """Which samples have their picture cut into tiles: a share of those with exactly one, the same in every epoch."""
    is_single: npt.NDArray[np.bool_] = images == 1
    return chosen(ids[:, 0], seed, share) & is_single


def _numbers(table: pa.Table, column: str, path: Path) -> npt.NDArray[np.int32]:
    if table[column].null_count:
        raise InputError(f"{path}: kept samples without {column}; build its samples again")
    return np.asarray(table[column].to_numpy(), dtype=np.int32)


def _sums(lists: pa.ChunkedArray) -> npt.NDArray[np.int32]:
    """Add up each list of a list column."""
    sums = np.zeros(len(lists), dtype=np.int32)
    row = 0
    for chunk in lists.chunks:
        edges = chunk.offsets.to_numpy()
        totals = np.concatenate([[0], np.cumsum(chunk.values.to_numpy()[: edges[-1]])])
        sums[row : row + len(chunk)] = totals[edges[1:]] - totals[edges[:-1]]
        row += len(chunk)
    return sums


def _joined(parts: Sequence[_Part], column: str, dtype: type) -> npt.NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype), *(getattr(part, column) for part in parts)]).astype(dtype, copy=False)
