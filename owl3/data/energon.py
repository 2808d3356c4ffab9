"""The same shards for people who load with Megatron-Energon: side files and a metadataset, no copy of the tars.

    DIR/metadataset.yaml                 the mixture as a blend
    DIR/NAME/00000.tar                   a link to samples/NAME/00000.tar
    DIR/NAME/00000.tar.idx               where each sample begins (uint64), and where the last one ends
    DIR/NAME/.nv-meta/                   dataset.yaml split.yaml .info.json index.sqlite index.uuid

Written from the sample indexes alone: `energon prepare` would read every tar. Retracted samples are excluded. Energon
draws by chance from the blend: the mixture is the plan's, its order is not.

Source of the format: Megatron-Energon 7.4 (docs/basic/data_on_disk, and what its `prepare` writes).
"""

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

from owl3.errors import ConfigError
from owl3.ledger import tombstones_path
from owl3.planfile import TAR_BLOCK, Plan, PlannedDataset
from owl3.sampleindex import kept_rows
from owl3.storage import write_atomic

_ENERGON_VERSION = "7.4.1"
_CRUDE = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
_TABLES = """
CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, sample_index INTEGER NOT NULL,
                      byte_offset INTEGER, byte_size INTEGER);
CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, content_byte_offset INTEGER,
                           content_byte_size INTEGER);
"""
_INDEXES = """
CREATE INDEX idx_samples_by_tar_and_idx ON samples(tar_file_id, sample_index);
CREATE INDEX idx_sample_parts_seq ON sample_parts(tar_file_id, sample_index, content_byte_offset);
CREATE INDEX idx_sample_parts_full
    ON sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, content_byte_size);
"""

_Part = tuple[str, int, int]
"""Name, offset of its first byte, bytes."""


def export_energon(plan: Plan, workspace: Path, folder: Path) -> Path:
    """Write the side files for all datasets of a plan; return the metadataset's path.

    Raises:
        ConfigError: a dataset keeps its media in other tars.
        StaleError: the samples are not those of the plan.
    """
    plan.check_parents(workspace)
    retracted = _retracted(workspace)
    for dataset in plan.header.datasets:
        _export_dataset(dataset, workspace / "samples" / dataset.name, folder / dataset.name, retracted)
    blend = [{"weight": dataset.draws, "path": f"./{dataset.name}"} for dataset in plan.header.datasets]
    metadataset = {
        "__module__": "megatron.energon",
        "__class__": "MetadatasetV2",
        "splits": {"train": {"blend": blend}},
    }
    path = folder / "metadataset.yaml"
    write_atomic(path, yaml.safe_dump(metadataset, sort_keys=False).encode())
    return path


def _export_dataset(dataset: PlannedDataset, source: Path, target: Path, retracted: frozenset[str]) -> None:
    meta = target / ".nv-meta"
    meta.mkdir(parents=True, exist_ok=True)
    counts: dict[str, int] = {}
    exclude: list[str] = []
    aside = meta / "index.sqlite.partial"
    aside.unlink(missing_ok=True)
    with sqlite3.connect(aside) as index:
        index.executescript(_TABLES)
        for number, shard in enumerate(dataset.shards):
            tar = f"{shard.name}.tar"
            rows = list(_parts_of(source / f"{shard.name}.parquet", f"samples/{dataset.name}/{tar}"))
            starts = [parts[0][1] - TAR_BLOCK for _, parts in rows] + [_end_of(rows[-1][1])]
            counts[tar] = len(rows)
            exclude += [f"{tar}/{place}" for place, (key, _) in enumerate(rows) if key in retracted]
            index.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                [(number, key, i, starts[i], starts[i + 1] - starts[i]) for i, (key, _) in enumerate(rows)],
            )
            index.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                [(number, i, *part) for i, (_, parts) in enumerate(rows) for part in parts],
            )
            write_atomic(target / f"{tar}.idx", np.array(starts, dtype="<u8").tobytes())
            _link(target / tar, source / tar)
        index.executescript(_INDEXES)
    index.close()
    aside.replace(meta / "index.sqlite")
    write_atomic(meta / "index.uuid", str(uuid.uuid5(uuid.NAMESPACE_OID, dataset.digest)).encode())
    write_atomic(meta / "dataset.yaml", yaml.safe_dump(_CRUDE | {"subflavors": {"owl3": dataset.name}}).encode())
    split = {"split_parts": {"train": list(counts), "val": [], "test": []}, "exclude": exclude}
    write_atomic(meta / "split.yaml", yaml.safe_dump(split, sort_keys=False).encode())
    # Written last: Energon takes a folder with .info.json for a prepared dataset.
    info = {"energon_version": _ENERGON_VERSION, "shard_counts": counts}
    write_atomic(meta / ".info.json", json.dumps(info, indent=1).encode())


def _parts_of(index: Path, tar: str) -> Iterator[tuple[str, list[_Part]]]:
    """The members of each kept sample, in the order in which they stand in the tar.

    The index does not keep the media's extensions: those are read from the tar's headers.
    """
    with index.with_suffix(".tar").open("rb") as handle:
        for row in kept_rows(index, ["key", "json_offset", "json_bytes", "media"]).to_pylist():
            media: list[dict[str, Any]] = row["media"] or []
            elsewhere = next((medium["path"] for medium in media if medium["path"] != tar), None)
            if elsewhere is not None:
                raise ConfigError(
                    f"{index}: refers to media in {elsewhere}; Energon needs them in one tar: owl3 materialize it first"
                )
            places = [(row["json_offset"], row["json_bytes"]), *((m["offset"], m["bytes"]) for m in media)]
            yield row["key"], [(_part_name(handle.fileno(), offset), offset, size) for offset, size in places]


def _part_name(handle: int, offset: int) -> str:
    """`0.jpg` of the member KEY.0.jpg whose bytes begin at `offset`."""
    header = os.pread(handle, 100, offset - TAR_BLOCK)
    return header.rstrip(b"\0").decode().partition(".")[2]


def _end_of(parts: list[_Part]) -> int:
    """Where the blocks of a sample's last member end."""
    _, offset, size = parts[-1]
    return offset + (size + TAR_BLOCK - 1) // TAR_BLOCK * TAR_BLOCK


def _link(link: Path, target: Path) -> None:
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))


def _retracted(workspace: Path) -> frozenset[str]:
    path = tombstones_path(workspace)
    if not path.is_file():
        return frozenset()
    return frozenset(pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist())
