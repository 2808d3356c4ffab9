"""The side files for Megatron-Energon say what its own `prepare` says of the same tars."""

import json
import sqlite3
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from owl3.data.energon import export_energon
from owl3.ledger import TOMBSTONES, tombstones_path
from tests.data.conftest import MakeSamples
from tests.data.test_plan import config, planned, planned_ids


def test_offsets_parts_and_counts_are_the_tars(workspace: Path, make_samples: MakeSamples, tmp_path: Path) -> None:
    make_samples("photos", 16, images=(0, 3))
    make_samples("pages", 8)
    plan = planned(workspace, config("photos", "pages", max_tokens=300))
    metadataset = export_energon(plan, workspace, tmp_path / "energon")
    blend = yaml.safe_load(metadataset.read_text())["splits"]["train"]["blend"]
    assert [entry["path"] for entry in blend] == ["./photos", "./pages"]
    folder = tmp_path / "energon" / "photos"
    info = json.loads((folder / ".nv-meta" / ".info.json").read_text())
    assert sum(info["shard_counts"].values()) == 16
    index = sqlite3.connect(folder / ".nv-meta" / "index.sqlite")
    for number, (shard, count) in enumerate(info["shard_counts"].items()):
        with tarfile.open(folder / shard) as tar:  # through the link, as Energon reads it
            members = [(member, *member.name.split(".", 1)) for member in tar]
            end = tar.offset
        starts = [member.offset for member, _, part in members if part == "json"]
        assert np.fromfile(folder / f"{shard}.idx", dtype="<u8").tolist() == [*starts, end]
        assert len(starts) == count
        question = "SELECT part_name, content_byte_offset, content_byte_size FROM sample_parts "
        question += "WHERE tar_file_id = ? ORDER BY content_byte_offset"
        assert index.execute(question, [number]).fetchall() == [(p, m.offset_data, m.size) for m, _, p in members]
        keys = index.execute("SELECT sample_key, byte_offset FROM samples WHERE tar_file_id = ?", [number]).fetchall()
        assert keys == [(key, member.offset) for member, key, part in members if part == "json"]


def test_retracted_samples_are_excluded(workspace: Path, make_samples: MakeSamples, tmp_path: Path) -> None:
    make_samples("photos", 16)
    plan = planned(workspace, config("photos", max_tokens=300))
    gone = planned_ids(plan, workspace)[3]
    row = {"sample_id": gone, "matched_by": "sample_id", "matched_value": gone, "reason": "asked", "time": ""}
    pq.write_table(pa.Table.from_pylist([row], schema=TOMBSTONES), tombstones_path(workspace))
    export_energon(plan, workspace, tmp_path)
    (excluded,) = yaml.safe_load((tmp_path / "photos" / ".nv-meta" / "split.yaml").read_text())["exclude"]
    shard, place = excluded.split("/")
    with tarfile.open(tmp_path / "photos" / shard) as tar:
        jsons = [name for name in tar.getnames() if name.endswith(".json")]
    assert jsons[int(place)] == f"{gone}.json"
