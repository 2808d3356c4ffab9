"""Dumps in, URL tables out: dirty rows are counted, none crashes."""

import datetime
import decimal
import gzip
import io
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from owl3.config import plain_json
from owl3.curate.config import CurateConfig
from owl3.curate.sources.columns import column_of
from owl3.curate.sources.prepare import SourceConfig, clean_row, prepare
from owl3.curate.sources.urltables import iter_rows
from owl3.curate.table import member_json
from owl3.errors import InputError
from owl3.ledger import TOMBSTONES
from owl3.manifest import Manifest
from owl3.samples import url_id, url_sample_id

GOOD = {"url": "http://a.example/1.jpg", "caption": "a red circle"}


def prepared(workspace: Path, **settings: Any) -> tuple[Manifest, list[dict[str, Any]]]:
    config = SourceConfig(**({"name": "s", "files": ("in.*",)} | settings))
    manifest = prepare(config, workspace)
    rows = [row for table in iter_rows(workspace / "sources" / config.name, 1000) for row in table.to_pylist()]
    return manifest, rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write rows in the format that the name asks for."""
    name = path.name.removesuffix(".gz")
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    if name.endswith("json"):
        text = json.dumps(rows)
    elif name.endswith("jsonl"):
        text = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        separator = "," if name.endswith("csv") else "\t"
        lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
        text = "".join(separator.join(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    "name",
    ["in.parquet", "in.csv", "in.tsv", "in.json", "in.jsonl", "in.csv.gz", "in.tsv.gz", "in.json.gz", "in.jsonl.gz"],
)
def test_every_kind_of_file_gives_the_same_rows(name: str, workspace: Path) -> None:
    write(workspace / name, [GOOD, GOOD | {"caption": "two"}])
    manifest, rows = prepared(workspace)
    assert manifest.counts.kept == 2
    assert [row["sample_id"] for row in rows] == [url_sample_id(GOOD["url"], text) for text in (GOOD["caption"], "two")]
    assert [row["position"] for row in rows] == [0, 1]


@pytest.mark.parametrize(
    ("dirt", "reason"),
    [
        ({"url": None}, "bad_url"),
        ({"url": ""}, "bad_url"),
        ({"url": "not a url"}, "bad_url"),
        ({"url": "ftp://a.example/1.jpg"}, "bad_url"),
        ({"url": "javascript:alert(1)"}, "bad_url"),
        ({"url": "http://"}, "bad_url"),
        ({"url": "http://[::1"}, "bad_url"),
        ({"url": "http://a.example:99999/"}, "bad_url"),
        ({"url": "http://" + "a" * 70 + ".example/"}, "bad_url"),
        ({"url": 7}, "wrong_type"),
        ({"caption": 7}, "wrong_type"),
        ({"caption": ["a"]}, "wrong_type"),
        ({"caption": None}, "missing_caption"),
        ({"caption": float("nan")}, "missing_caption"),
        ({"caption": " \n "}, "missing_caption"),
        ({"caption": "bell \x07"}, "control_characters"),
        ({"caption": "x" * 200_000}, "caption_too_long"),
        ({"boxes": [["a", 0.1, 0.2, 0.3]]}, "wrong_type"),
        ({"boxes": [[0.1, 0.2, 0.3]]}, "wrong_type"),
        ({"boxes": [[0.1, 0.2, 0.3, float("nan")]]}, "wrong_type"),
        ({"boxes": 7}, "wrong_type"),
    ],
)
def test_each_kind_of_dirt_has_its_reason(dirt: dict[str, Any], reason: str) -> None:
    assert clean_row(GOOD | dirt, SourceConfig(name="s", files=("x",))) == reason


_TEXT = st.text() | st.text(st.characters(categories=["Cs", "Lu"]), max_size=3)
_VALUES = st.one_of(st.none(), _TEXT, st.integers(), st.floats(), st.binary(), st.lists(st.text(max_size=3)))
_COLUMNS = ("caption", "licence", "language", "sha256", "start_s", "boxes")


@given(
    st.fixed_dictionaries(
        {"url": _VALUES | st.text().map("http://".__add__)},
        optional=dict.fromkeys(_COLUMNS, _VALUES) | {"boxes": _VALUES | st.lists(st.lists(st.floats() | _TEXT))},
    )
)
def test_no_row_crashes_the_preparation(row: dict[str, Any]) -> None:
    cleaned = clean_row(row, SourceConfig(name="s", files=("x",)))
    assert isinstance(cleaned, str) or cleaned["url"].strip()


@settings(deadline=None)
@example([{}])
@example([None, [{"a": {}}]])
@given(st.lists(_VALUES | st.integers(2**62, 2**70) | st.dictionaries(_TEXT, _VALUES)))
def test_a_column_of_anything_can_be_written(values: list[Any]) -> None:
    column = column_of(values)
    sink = io.BytesIO()
    pq.write_table(pa.table({"src_a": column}), sink)
    nothing = [value is None or (isinstance(value, float) and not math.isfinite(value)) for value in values]
    assert [value is None for value in column.to_pylist()] == nothing
    plain_json(column.to_pylist())


def test_what_json_holds_and_no_file_can_is_written_down_all_the_same(workspace: Path) -> None:
    rows = [GOOD | {"caption": "half \ud83d", "more": 1}, GOOD | {"more": "half \ud83d"}, GOOD | {"url": "\ud83d"}]
    write(workspace / "in.jsonl", [row | {"licence": "\ud83d"} for row in rows])
    columns = {"licence": "licence", "extra": ("more",)}
    manifest, kept = prepared(workspace, columns=columns)
    assert manifest.counts.dropped == {"bad_url": 1, "control_characters": 1}
    assert (kept[0]["licence"], kept[0]["src_more"]) == ("?", "half ?")
    write(workspace / "in.jsonl", [GOOD | {"name \ud83d": {"part \ud83d": 1}}])
    (row,) = prepared(workspace, name="names", columns={"extra": ("*",)})[1]
    assert row["src_name ?"] == {"part ?": 1}


def test_a_column_has_one_type_in_all_tables(workspace: Path) -> None:
    values = [None, 1, 2.5, "three"]
    rows = [GOOD | {"caption": f"number {n}", "a": value, "b": n} for n, value in enumerate(values)]
    rows[0]["b"], rows[1]["b"] = None, 2**63
    write(workspace / "in.jsonl", rows)
    _, kept = prepared(workspace, rows_per_file=1, columns={"extra": ("a", "b")})
    assert [row["src_a"] for row in kept] == [None, "1", "2.5", "three"]
    assert [row["src_b"] for row in kept] == [None, str(2**63), "2", "3"]
    tables = sorted((workspace / "sources" / "s").glob("urls-*.parquet"))
    assert len({pq.read_schema(table) for table in tables}) == 1 and len(tables) == 4


def test_tables_of_a_killed_run_are_no_part_of_the_next(workspace: Path) -> None:
    write(workspace / "in.parquet", [GOOD])
    stray = workspace / "sources" / "s" / "urls-00007.parquet"
    stray.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([GOOD]), stray)
    manifest, rows = prepared(workspace)
    assert manifest.counts.kept == len(rows) == 1 and not stray.exists()


def test_rows_are_conserved_and_each_drop_is_listed(workspace: Path) -> None:
    rows = [GOOD, GOOD, GOOD | {"url": "x"}, GOOD | {"caption": None}, GOOD | {"url": "HTTP://A.example:80/1.jpg#top"}]
    write(workspace / "in.parquet", rows)
    manifest, kept = prepared(workspace)
    assert manifest.counts.dropped == {"bad_url": 1, "duplicate_row": 2, "missing_caption": 1}
    assert (manifest.counts.seen, len(kept)) == (5, 1)
    dropped = pq.read_table(workspace / "sources" / "s" / "dropped.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in dropped] == [
        (1, "duplicate_row"),
        (2, "bad_url"),
        (3, "missing_caption"),
        (4, "duplicate_row"),
    ]


def test_newlines_and_tabs_in_captions_become_spaces(workspace: Path) -> None:
    write(workspace / "in.jsonl", [GOOD | {"caption": " two\n lines\tof  text "}])
    assert prepared(workspace)[1][0]["caption"] == "two lines of text"


def test_columns_are_mapped_and_extra_ones_carried_along(workspace: Path) -> None:
    write(
        workspace / "in.parquet", [{"URL": GOOD["url"], "TEXT": "cap", "LICENSE": "CC0", "similarity": 0.3, "hash": 5}]
    )
    columns = {"url": "URL", "caption": "TEXT", "licence": "LICENSE", "extra": ("similarity",)}
    (row,) = prepared(workspace, columns=columns)[1]
    assert (row["caption"], row["licence"], row["src_similarity"]) == ("cap", "CC0", 0.3) and "src_hash" not in row


def test_columns_of_types_that_json_has_not_become_text_or_nothing(workspace: Path) -> None:
    """KEY.json holds them: what it can't hold would stop the run when all pictures have been fetched."""
    odd = {
        "when": datetime.datetime(2020, 1, 2, 3, 4, 5),
        "day": datetime.date(2020, 1, 2),
        "took": datetime.timedelta(seconds=90),
        "price": decimal.Decimal("1.50"),
        "name": "Zoë".encode(),
        "digest": b"\xff\x00",
        "score": float("nan"),
        "scores": [0.5, float("inf")],
        "found": [{"at": datetime.time(1, 2), "size": 3}],
    }
    write(workspace / "in.parquet", [GOOD | odd])
    (row,) = prepared(workspace, columns={"extra": ("*",)})[1]
    found = {name.removeprefix("src_"): value for name, value in row.items() if name.startswith("src_")}
    assert found == {
        "when": "2020-01-02T03:04:05",
        "day": "2020-01-02",
        "took": 90.0,
        "price": "1.50",
        "name": "Zoë",
        "digest": "ff00",
        "score": None,
        "scores": [0.5, None],
        "found": [{"at": "01:02:00", "size": 3}],
    }
    assert json.loads(plain_json(member_json(row)))["src_found"] == found["found"]


def test_a_table_without_header_is_mapped_by_number(workspace: Path) -> None:
    (workspace / "in.tsv").write_text('a "quoted caption\thttp://a.example/1.jpg\n')
    (row,) = prepared(workspace, header=False, columns={"url": "1", "caption": "0"})[1]
    assert row["caption"] == 'a "quoted caption'


def test_a_missing_column_is_an_error_that_lists_what_there_is(workspace: Path) -> None:
    write(workspace / "in.parquet", [{"URL": "http://a.example/1", "TEXT": "cap"}])
    with pytest.raises(InputError, match=r"in\.parquet: no column 'url'.*URL, TEXT"):
        prepared(workspace)


def test_a_missing_file_is_an_error_that_names_the_pattern(workspace: Path) -> None:
    with pytest.raises(InputError, match=r"no file matches 'in\.\*'"):
        prepared(workspace)


def test_tables_are_cut_and_read_back_in_any_size(workspace: Path) -> None:
    write(workspace / "in.jsonl", [GOOD | {"caption": str(number)} for number in range(10)])
    prepared(workspace, rows_per_file=4)
    folder = workspace / "sources" / "s"
    assert len(list(folder.glob("urls-*.parquet"))) == 3
    for size in (1, 3, 7, 100):
        tables = list(iter_rows(folder, size))
        assert [table.num_rows for table in tables[:-1]] == [size] * (len(tables) - 1)
        assert [row["position"] for table in tables for row in table.to_pylist()] == list(range(10))


def test_clock_times_become_seconds(workspace: Path) -> None:
    write(workspace / "in.jsonl", [GOOD | {"from": "00:01:02.500", "to": 70}])
    (row,) = prepared(workspace, media="video", columns={"start_s": "from", "end_s": "to"})[1]
    assert (row["start_s"], row["end_s"]) == (62.5, 70.0)


def coco(workspace: Path) -> None:
    data = {
        "images": [{"id": 2, "file_name": "b c.jpg", "license": 4}, {"id": 1, "file_name": "a.jpg", "license": 99}],
        "annotations": [
            {"id": 12, "image_id": 2, "caption": "later"},
            {"id": 11, "image_id": 2, "caption": "first"},
            {"id": 10, "image_id": 7, "caption": "of no picture"},
        ],
    }
    (workspace / "in.json").write_text(json.dumps(data))


@pytest.mark.parametrize(("captions", "expected"), [("first", ["first"]), ("each", ["first", "later"])])
def test_a_coco_folder(workspace: Path, captions: str, expected: list[str]) -> None:
    coco(workspace)
    manifest, rows = prepared(workspace, layout="coco", base_url="http://coco.test/", captions=captions)
    assert [row["caption"] for row in rows] == expected
    assert rows[0]["url"] == "http://coco.test/b%20c.jpg" and rows[0]["licence"] == "CC-BY-2.0"
    assert manifest.counts.dropped == {"missing_caption": 1}


def test_a_llava_folder(workspace: Path) -> None:
    turns = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "a boy"}]
    rows = [{"id": "1", "image": "00/1.jpg", "conversations": turns}, {"id": "2", "conversations": turns}]
    (workspace / "in.json").write_text(json.dumps(rows))
    manifest, kept = prepared(workspace, layout="llava", base_url="http://llava.test/")
    assert [(row["url"], row["caption"]) for row in kept] == [("http://llava.test/00/1.jpg", "a boy")]
    assert manifest.counts.dropped == {"bad_url": 1}


def test_a_prepared_source_is_left_alone(workspace: Path) -> None:
    write(workspace / "in.jsonl", [GOOD])
    first = prepared(workspace)[0]
    assert prepared(workspace)[0] == first


def test_the_digest_depends_on_content_not_on_where_it_lies(workspace: Path, tmp_path: Path) -> None:
    write(workspace / "in.jsonl", [GOOD])
    other = tmp_path / "other"
    other.mkdir()
    write(other / "in.jsonl", [GOOD])
    assert prepared(workspace)[0].digest == prepared(other, files=(str(other / "in.jsonl"),))[0].digest


@pytest.mark.parametrize("name", ["my/mine", "mine ", "a/../../x", "..", "a\n", ""])
def test_a_name_that_is_no_folder_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        SourceConfig(name=name, files=("x",))
    with pytest.raises(ValidationError, match="name"):
        CurateConfig(name=name, source="s")


def test_what_was_retracted_does_not_come_back_by_another_dump(workspace: Path) -> None:
    """Not by its id, not by its URL with other words, and it is not written down who."""
    other = {"url": "http://b.example/2.jpg", "caption": "a blue square"}
    gone = {"sample_id": url_sample_id(GOOD["url"], GOOD["caption"]), "matched_by": "url", "matched_value": "sha256:0"}
    gone |= {"url_id": url_id(GOOD["url"]), "reason": "asked", "time": ""}
    pq.write_table(pa.Table.from_pylist([gone], schema=TOMBSTONES), workspace / "tombstones.parquet")
    write(
        workspace / "in.jsonl", [GOOD, other, GOOD | {"caption": "somebody by name", "url": "HTTP://A.example/1.jpg"}]
    )
    manifest, rows = prepared(workspace)
    assert (manifest.counts.kept, manifest.counts.dropped) == (1, {"tombstoned": 2})
    assert [row["url"] for row in rows] == [other["url"]]
    dropped = pq.read_table(workspace / "sources" / "s" / "dropped.parquet").to_pylist()
    assert dropped == [{"row": row, "reason": "tombstoned", "url": None, "caption": None} for row in (0, 2)]
