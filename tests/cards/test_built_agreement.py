"""Looking at all columns of a built shard at once lets nothing pass that looking row by row would name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from owl3.cards import rederive
from owl3.cards.rederive import TokenCounter
from owl3.cards.rows import Derived
from owl3.manifest import read_manifest
from owl3.shards import iter_members

from .conftest import picture
from .forge import Row, edit_json, edit_rows, edit_tar

Members = list[tuple[str, dict[str, bytes]]]


def _derive(workspace: Path) -> Derived:
    folder = workspace / "samples" / "pairs"
    counter = TokenCounter.of(read_manifest(folder), workspace)
    return rederive.samples(folder, "00000", workspace, counter)


def _assert_same(workspace: Path) -> list[str]:
    """Derive both ways; returns what both say."""
    quick = _derive(workspace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rederive, "agreed", lambda *_: None)
        slow = _derive(workspace)
    lines = [check.line() for check in slow.problems]
    assert [check.line() for check in quick.problems] == lines
    assert quick.tar_sha256 == slow.tar_sha256
    for count in ("num_rows", "num_read", "num_members", "num_bytes"):
        assert getattr(quick, count) == getattr(slow, count)
    return lines


def _tables(workspace: Path) -> tuple[Path, Path]:
    folder = workspace / "samples" / "pairs"
    return folder / "00000.tar", folder / "00000.parquet"


def refer(workspace: Path) -> None:
    """Let the first sample refer to its parents' pictures in place of holding them."""
    tar, table = _tables(workspace)
    parents = pq.read_table(workspace / "shards" / "tiny" / "00000.parquet").to_pylist()
    places = {row["sha256"]: (row["media_offset"], row["media_bytes"]) for row in parents if row["decision"] == "kept"}

    def take_out(samples: Members) -> None:
        samples[0] = (samples[0][0], {"json": samples[0][1]["json"]})

    edit_tar(tar, take_out)
    now = {member.name: member.offset for member, _ in iter_members(tar)}

    def place(rows: list[Row]) -> None:
        for row in rows:
            if row["decision"] == "kept":
                row["json_offset"] = now[f"{row['key']}.json"]
                for number, medium in enumerate(row["media"]):
                    medium["offset"] = now.get(f"{row['key']}.{number}.jpg")
        for medium in rows[0]["media"]:
            medium["path"] = "shards/tiny/00000.tar"
            medium["offset"], medium["bytes"] = places[medium["sha256"]]

    edit_rows(table, place)


@pytest.mark.parametrize("by_reference", [False, True])
def test_a_true_shard_is_taken_as_it_is_without_going_through_its_rows(
    by_reference: bool, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by_reference:
        refer(workspace)
    assert _assert_same(workspace) == []
    monkeypatch.setattr(rederive, "_built_row", None)
    assert _derive(workspace).table == _tables(workspace)[1]


EDITS: dict[str, Callable[[Row], object]] = {
    "shard": lambda row: row.update(shard="00007"),
    "position": lambda row: row.update(position=-3),
    "media": lambda row: row["media"][1].update(path="shards/tiny/00000.tar"),
    "sample_id": lambda row: row.update(sample_id="0" * 32),
    "key": lambda row: row.update(key="0" * 32),
    "licence": lambda row: row.update(licence="CC0-1.0"),
    "images": lambda row: row.update(images=2),
    "tiles": lambda row: row.update(tiles=[1]),
    "text_tokens": lambda row: row.update(text_tokens=None),
    "json_offset": lambda row: row.update(json_offset=0),
    "json_bytes": lambda row: row.update(json_bytes=0),
    "parents": lambda row: row.update(parents=None),
    "a medium less": lambda row: row["media"].pop(),
    "no media": lambda row: row.update(media=None),
    "a time": lambda row: row["media"][0].update(time_s=1.0),
    "a width": lambda row: row["media"][2].update(width=7),
    "a path that leads out": lambda row: row["media"][0].update(path="../x.tar"),
    "no path": lambda row: row["media"][0].update(path=None),
    "a negative size": lambda row: row["media"][0].update(bytes=-1),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_row_is_named_alike(name: str, workspace: Path) -> None:
    def edit(rows: list[Row]) -> None:
        EDITS[name](rows[0])

    edit_rows(_tables(workspace)[1], edit)
    lines = _assert_same(workspace)
    assert lines
    if name in pq.read_schema(_tables(workspace)[1]).names:
        assert any(name in line or "not in the tar" in line for line in lines), lines


@pytest.mark.parametrize(
    "edit", [{"path": "shards/tiny/00009.tar"}, {"offset": 2**40}, {"bytes": 2**40}, {"offset": 0}]
)
def test_a_reference_to_what_is_not_there_is_named_alike(edit: Row, workspace: Path) -> None:
    refer(workspace)
    edit_rows(_tables(workspace)[1], lambda rows: rows[0]["media"][0].update(edit))
    assert _assert_same(workspace)


CHANGES: dict[str, Callable[[Members], object]] = {
    "a text": lambda samples: samples[0][1].update(json=edit_json(samples[0][1]["json"], source="elsewhere")),
    "no record": lambda samples: samples[0][1].update(json=b"{}"),
    "no JSON": lambda samples: samples[0][1].update(json=b"\xff"),
    "another picture": lambda samples: samples[0][1].update({"1.jpg": picture(17)}),
    "no picture": lambda samples: samples[0][1].update({"1.jpg": b"x"}),
    "samples exchanged": lambda samples: samples.reverse(),
    "one more member": lambda samples: samples[0][1].update(xmp=b"x"),
    "a picture under another number": lambda samples: samples[0][1].update({"7.jpg": samples[0][1].pop("2.jpg")}),
    "a key exchanged": lambda samples: samples.append(("f" * 32, samples.pop()[1])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_members_are_named_alike(name: str, workspace: Path) -> None:
    def change(samples: Members) -> None:
        CHANGES[name](samples)

    edit_tar(_tables(workspace)[0], change)
    assert _assert_same(workspace)


def test_a_meta_that_changes_the_id_is_named(workspace: Path) -> None:
    def change(samples: Members) -> None:
        meta = json.loads(samples[0][1]["json"])["meta"] | {"extra": "pass 7"}
        samples[0][1]["json"] = edit_json(samples[0][1]["json"], meta=meta)

    edit_tar(_tables(workspace)[0], change)
    assert any("its parts hash to" in line for line in _assert_same(workspace))
