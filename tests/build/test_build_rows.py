"""Row tables and streaming JSON: what goes in comes out, in order, by number."""

import io
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.build import rows as rows_module
from owl3.build.rows import BATCH_ROWS, KeyIndex, RowTable, iter_json, write_rows
from owl3.errors import InputError

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.lists(JSON_VALUES, max_size=8), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_json_is_read_alike_through_any_window(
    values: list[object], window: int, indent: int | None, lines: bool
) -> None:
    text = "\n".join(map(json.dumps, values)) if lines else json.dumps(values, indent=indent)
    if lines and values and isinstance(values[0], list):
        return  # a file that begins with a list is one list of rows
    before = rows_module._READ_CHARS
    rows_module._READ_CHARS = window
    try:
        assert list(rows_module._iter_json_text(io.StringIO(text))) == values
    finally:
        rows_module._READ_CHARS = before


@pytest.mark.parametrize("text", ['[{"a": 1}', '[{"a": 1}, {"b"', "{", "[1, 2"])
def test_json_that_breaks_off_is_an_error_that_names_the_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "cut.json").write_text(text)
    with pytest.raises(InputError, match=r"cut\.json"):
        list(iter_json(tmp_path / "cut.json"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1}\n{"a":', "not JSON after 1 rows: Expecting value"),
        ('{"a": 1}\n' + "[" * 100_000, "row 1 is nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "not JSON after 0 rows: Exceeds the limit"),
        ("\udcff", "not JSON after 0 rows: 'utf-8' codec"),
    ],
)
def test_a_row_that_cannot_be_read_is_counted_to(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rows.jsonl").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=rf"rows\.jsonl: {message}"):
        list(iter_json(tmp_path / "rows.jsonl"))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"rows\.parquet: not Parquet after 0 rows"):
        list(iter_json(tmp_path / "rows.parquet"))


@pytest.mark.parametrize("text", ['{"a": 1}\r\n{"a": 2}\r\n', '[\r\n{"a": 1},\r\n{"a": 2}\r\n]'])
def test_files_of_windows_are_read_as_all_others(tmp_path: Path, text: str) -> None:
    (tmp_path / "rows.json").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert list(iter_json(tmp_path / "rows.json")) == [{"a": 1}, {"a": 2}]


def test_rows_are_found_by_number_across_batches(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64()), ("text", pa.string())])
    total = BATCH_ROWS * 2 + 10
    tables = (
        pa.table(
            {
                "n": range(first, min(first + 999, total)),
                "text": [str(n) for n in range(first, min(first + 999, total))],
            }
        )
        for first in range(0, total, 999)
    )
    assert write_rows(tmp_path / "rows.arrow", schema, tables) == total
    table = RowTable(tmp_path / "rows.arrow")
    assert len(table) == total
    one_after_another = range(BATCH_ROWS - 70, BATCH_ROWS + 3)
    for number in (0, BATCH_ROWS - 1, BATCH_ROWS, total - 1, *one_after_another, 5, total - 2, total - 1):
        assert table[number] == {"n": number, "text": str(number)}


@given(st.lists(st.lists(st.integers(0, 30), max_size=9), max_size=6))
def test_long_rows_make_short_batches_and_none_is_lost(lengths: list[list[int]]) -> None:
    """Rows may hold pictures: four thousand of them can be more than Arrow's strings hold."""
    texts = [["x" * length for length in table] for table in lengths]
    schema = pa.schema([("text", pa.string())])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_module, "BATCH_ROWS", 3)
        patch.setattr(rows_module, "BATCH_BYTES", 40)
        path = Path(folder) / "rows.arrow"
        write_rows(path, schema, (pa.table({"text": pa.array(table, pa.string())}) for table in texts))
        table = RowTable(path)
        flat = [text for part in texts for text in part]
        assert [table[number]["text"] for number in range(len(table))] == flat
        assert [table[number]["text"] for number in reversed(range(len(table)))] == flat[::-1]
        assert all(batch.num_rows <= 3 for batch in table.batches())


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    assert write_rows(tmp_path / "rows.arrow", pa.schema([("n", pa.int64())]), []) == 0
    assert len(RowTable(tmp_path / "rows.arrow")) == 0


def test_keys_are_found_and_strangers_are_not(tmp_path: Path) -> None:
    KeyIndex.write(tmp_path / "index", [("a", 3), ("b", 1), ("a", 2)])
    index = KeyIndex(tmp_path / "index")
    assert index.candidates("a") == [2, 3]
    assert index.candidates("b") == [1]
    assert index.candidates("c") == []
