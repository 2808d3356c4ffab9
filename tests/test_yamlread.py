"""YAML that people write: what is wrong is one line with its place, and nothing makes the reader hang or fall."""

from pathlib import Path

import pytest

from owl3.errors import ConfigError
from owl3.yamlread import MAX_NODES, parse_yaml, read_yaml


def _bomb(levels: int) -> str:
    """A few lines whose aliases stand for 9 ** levels values."""
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"a: [1, 2", "line 1, column 9: while parsing a flow sequence: expected ',' or ']'"),
        (b"a: 1\n\tb: 2", "line 2, column 1: while scanning for the next token: found character"),
        (b"a: 1\nb: 2\na: 3", "line 3, column 1: the key 'a' stands here twice"),
        (b"day: 2024-13-45", "line 1, column 6: '2024-13-45' is no value (month must be in 1..12); put it in quotes"),
        (b"steps: " + b"9" * 6000, f"line 1, column 8: '{'9' * 40}…' is no value (Exceeds the limit (4300 digits)"),
        (b"a: &a [1, *a]", "line 1, column 4: it contains itself"),
        (b"a: &a {b: {c: *a}}", "line 1, column 4: it contains itself"),
        (_bomb(10).encode(), f"line 1, column 1: its aliases stand for more than {MAX_NODES:,} values"),
        (b"[" * 3000, "it is nested too deeply"),
        (b"a: \xff", "byte 4 is not UTF-8; save it as that"),
        ("name: x".encode("utf-16"), "byte 1 is not UTF-8; save it as that"),
        (b"a: x\0y", "unacceptable character #x0000"),
        (b"a: !!python/object/apply:os.system [id]", "line 1, column 4: could not determine a constructor for the tag"),
        (b"a: 1\n---\na: 2", "line 2, column 1: expected a single document in the stream"),
    ],
    ids=range(14),
)
def test_what_is_wrong_is_one_line_with_its_place(data: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(data)
    with pytest.raises(ConfigError) as raised:
        read_yaml(path)
    message = str(raised.value)
    assert message.startswith(f"{path}: not readable as YAML: {told}")
    assert "\n" not in message


@pytest.mark.parametrize(
    "data", ["a: 1\nb: [x]\n", "a: 1\r\nb: [x]\r\n", "\ufeffa: 1\nb: [x]\n", '{"a": 1, "b": ["x"]}']
)
def test_line_ends_a_byte_order_mark_and_json_change_nothing(data: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_bytes(data.encode())
    assert read_yaml(path) == {"a": 1, "b": ["x"]}


def test_a_folder_and_a_file_that_is_not_there_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is a folder"):
        read_yaml(tmp_path)
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "r.yaml")


def test_aliases_and_merges_that_a_person_writes_are_read() -> None:
    text = "base: &base {a: 1, b: 2}\nmine: {<<: *base, b: 3}\nsame: [*base, *base]"
    base = {"a": 1, "b": 2}
    assert parse_yaml(text, "r") == {"base": base, "mine": {"a": 1, "b": 3}, "same": [base, base]}
