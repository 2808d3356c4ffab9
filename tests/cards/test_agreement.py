"""Looking at all columns at once lets nothing pass that looking row by row would name."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.cards import rederive
from owl3.cards.rows import Derived, as_table, derive_rows, read_stated
from owl3.shards import iter_members

from .conftest import picture
from .forge import Row, edit_json, edit_rows, edit_tar

FIRST, SECOND = 0, 1
JSON_VALUES: st.SearchStrategy[object] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 2**70),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.integers(), max_size=2),
    st.dictionaries(st.text(max_size=2), st.none(), max_size=1),
)
Records = Callable[[bytes], bytes]


def _place_again(folder: Path) -> None:
    """Let the table say where members lie after a change, so that nothing but the change differs."""
    places = {m.name: (m.offset, m.num_bytes) for m, _ in iter_members(folder / "00000.tar")}

    def change(found: list[Row]) -> None:
        for row in found:
            for column, extension in (("json", "json"), ("media", "jpg")):
                if f"{row['key']}.{extension}" in places:
                    offset, size = places[f"{row['key']}.{extension}"]
                    row |= {f"{column}_offset": offset, f"{column}_bytes": size}

    edit_rows(folder / "00000.parquet", change)


def _row_by_row(folder: Path) -> Derived:
    derived = Derived()
    stated = read_stated(folder, "00000", derived)
    return derive_rows(folder, "00000", rederive._curated_row, stated, derived, only=None)


def _assert_same(folder: Path) -> list[str]:
    """Both ways name the same faults and derive the same rows; returns the faults."""
    quick, slow = rederive.shard(folder, "00000"), _row_by_row(folder)
    lines = sorted(check.line() for check in slow.problems)
    assert sorted(check.line() for check in quick.problems) == lines
    assert quick.tar_sha256 == slow.tar_sha256
    assert (quick.num_rows, quick.num_read, quick.num_bytes) == (slow.num_rows, slow.num_read, slow.num_bytes)
    schema = pq.read_schema(folder / "00000.parquet")
    tables = pq.read_table(quick.table) if quick.table else as_table(quick.rows, schema), as_table(slow.rows, schema)
    made, expected = (repr(table.sort_by("sample_id").to_pylist()) for table in tables)  # as text: nan equals nan
    assert made == expected
    return lines


def _change_records(folder: Path, *changes: Records) -> None:
    def change(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        for (_, members), edit in zip(samples, changes, strict=False):
            members["json"] = edit(members["json"])

    edit_tar(folder / "00000.tar", change)
    _place_again(folder)


def test_a_true_shard_is_taken_as_it_is_without_going_through_its_rows(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = workspace / "shards" / "tiny"
    assert _assert_same(folder) == []
    monkeypatch.setattr(rederive, "_curated_row", None)
    assert rederive.shard(folder, "00000").table == folder / "00000.parquet"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15, deadline=None)
@given(st.sampled_from(["url", "width", "key", "sharpness", "caption"]), JSON_VALUES)
def test_any_value_in_a_record_is_found_by_both(workspace: Path, name: str, value: object) -> None:
    folder = workspace / "shards" / "tiny"
    before = (folder / "00000.tar").read_bytes(), (folder / "00000.parquet").read_bytes()
    record = lambda data: json.dumps(json.loads(data) | {name: value}).encode()  # noqa: E731
    _change_records(folder, record)
    lines = _assert_same(folder)
    stated = next(row for row in pq.read_table(folder / "00000.parquet").to_pylist() if row["position"] == 0)
    (folder / "00000.tar").write_bytes(before[0])
    (folder / "00000.parquet").write_bytes(before[1])
    assert bool(lines) == (stated[name] != value)


HOSTILE: dict[str, tuple[Records, ...]] = {
    "a value said to be none": (partial(edit_json, licence=None),),
    "a word that looks like none in a caption": (partial(edit_json, source="nullify"),),
    "a field twice": (lambda data: data[:-1] + b',"licence":"CC-BY-4.0"}',),
    "two records in one and none in the next": (lambda data: data + b"\n" + data, lambda _: b""),
    "two records on one line and none in the next": (lambda data: data + data, lambda _: b"  "),
    "a record across two members": (lambda data: data[:-1] + b',"x":[{}', lambda data: b"{}]}" + data),
    "a list": (lambda _: b"[1]",),
    "a number": (lambda _: b"1",),
    "no JSON": (lambda _: b"{",),
    "nothing": (lambda _: b"",),
    "not UTF-8": (lambda data: data[:-1] + b',"x":"\xff"}',),
    "not UTF-8 in a known field": (lambda data: data.replace(b"CC0", b"CC\xff"),),
    "half a surrogate": (lambda data: data.replace(b'"CC0', b'"\\ud800CC0'),),
    "no number": (lambda data: data[:-1] + b',"sharpness":NaN}',),
    "too large a number": (lambda data: data[:-1] + b',"position":%d}' % 10**30,),
    "nested without end": (lambda data: data[:-1] + b',"x":' + b"[" * 100_000 + b"}",),
    "a field that the table has not": (partial(edit_json, src_new=3),),
    "white space within": (lambda data: data.replace(b",", b",\n", 1),),
    "an object for a word": (partial(edit_json, domain={"a": 1}),),
    "a number for a word": (partial(edit_json, domain=3),),
    "a word for a number": (partial(edit_json, width="48"),),
    "true for one": (partial(edit_json, width=True),),
    "the same number, spelt otherwise": (lambda data: data.replace(b'"width":48', b'"width":4.8e1'),),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_record_is_named_alike_and_never_an_exception(name: str, workspace: Path) -> None:
    folder = workspace / "shards" / "tiny"
    _change_records(folder, *HOSTILE[name])
    lines = _assert_same(folder)
    harmless = ("a word that", "a field that", "white space", "the same number")
    if not name.startswith(harmless):
        assert lines


Members = list[tuple[str, dict[str, bytes]]]
CHANGED: dict[str, Callable[[Members], object]] = {
    "no picture": lambda samples: samples[FIRST][1].pop("jpg"),
    "no picture where one should be": lambda samples: samples[FIRST][1].update(jpg=b"not a picture"),
    "no text": lambda samples: samples[FIRST][1].pop("txt"),
    "no record": lambda samples: samples[FIRST][1].pop("json"),
    "one more member": lambda samples: samples[FIRST][1].update(xmp=b"x"),
    "a second picture": lambda samples: samples[FIRST][1].update(png=picture(3)),
    "another picture": lambda samples: samples[FIRST][1].update(jpg=picture(3)),
    "another text": lambda samples: samples[FIRST][1].update(txt=b"x"),
    "a text that is not UTF-8": lambda samples: samples[FIRST][1].update(txt=b"\xff"),
    "pictures exchanged": lambda samples: samples[FIRST][1].update(jpg=samples[SECOND][1]["jpg"]),
    "samples exchanged": lambda samples: samples.reverse(),
    "a sample removed": lambda samples: samples.pop(),
    "a sample added": lambda samples: samples.append(("f" * 32, dict(samples[FIRST][1]))),
    "no sample at all": lambda samples: samples.clear(),
}


@pytest.mark.parametrize("name", CHANGED)
def test_other_members_are_named_alike(name: str, workspace: Path) -> None:
    folder = workspace / "shards" / "tiny"

    def change(samples: Members) -> None:
        CHANGED[name](samples)

    edit_tar(folder / "00000.tar", change)
    _place_again(folder)
    lines = _assert_same(folder)
    assert bool(lines) == (name not in ("no text", "no record", "one more member"))


@pytest.mark.parametrize("column", ["key", "url", "caption", "position", "reason", "width", "sha256", "json_offset"])
def test_a_table_with_an_empty_column_or_without_it_is_no_exception(column: str, workspace: Path) -> None:
    folder = workspace / "shards" / "tiny"
    table = pq.read_table(folder / "00000.parquet")
    empty = pa.nulls(len(table), table.schema.field(column).type)
    pq.write_table(table.set_column(table.schema.get_field_index(column), column, empty), folder / "00000.parquet")
    assert _assert_same(folder)
    drawn = frozenset(pq.read_table(folder / "00000.parquet")["key"].to_pylist()) | {"0" * 32}
    rederive.shard(folder, "00000", drawn)
    pq.write_table(table.drop_columns([column]), folder / "00000.parquet")
    rederive.shard(folder, "00000")
    rederive.shard(folder, "00000", drawn)


@pytest.mark.parametrize("damage", ["footer", "text"])
def test_a_table_that_can_not_be_read_is_named(damage: str, workspace: Path) -> None:
    folder = workspace / "shards" / "tiny"
    path = folder / "00000.parquet"
    if damage == "footer":
        path.write_bytes(path.read_bytes()[:-9])
    else:
        table = pq.read_table(path)
        words = pa.array([b"\xff"] * len(table), pa.binary()).view(pa.string())
        pq.write_table(table.set_column(table.schema.get_field_index("caption"), "caption", words), path)
    (line,) = [check.line() for check in rederive.shard(folder, "00000").problems]
    assert line.startswith("rows: tiny/00000.parquet: stated a readable table")


def test_a_drawn_sample_is_read_from_the_tars_that_hold_its_pictures(workspace: Path) -> None:
    """Its own tar and that of its parents have the same name, in two folders."""
    folder, parents = workspace / "samples" / "pairs", workspace / "shards" / "tiny"
    rows_of = pq.read_table(parents / "00000.parquet").to_pylist()
    places = {row["sha256"]: (row["media_offset"], row["media_bytes"]) for row in rows_of if row["decision"] == "kept"}

    def refer(rows: list[Row]) -> None:
        for medium in rows[0]["media"]:
            offset, size = places[medium["sha256"]]
            medium |= {"path": "shards/tiny/00000.tar", "offset": offset, "bytes": size}

    def take_out(samples: list[tuple[str, dict[str, bytes]]]) -> None:
        record = samples[0][1]["json"]
        samples[0][1].clear()
        samples[0][1]["json"] = record

    edit_tar(folder / "00000.tar", take_out)
    edit_rows(folder / "00000.parquet", refer)
    places_now = {m.name: (m.offset, m.num_bytes) for m, _ in iter_members(folder / "00000.tar")}

    def place(rows: list[Row]) -> None:
        offset, size = places_now[f"{rows[0]['key']}.json"]
        rows[0] |= {"json_offset": offset, "json_bytes": size}

    edit_rows(folder / "00000.parquet", place)
    key = pq.read_table(folder / "00000.parquet")["key"][0].as_py()
    derived = rederive.samples(folder, "00000", workspace, None, frozenset({key}))
    assert [check.line() for check in derived.problems] == []
