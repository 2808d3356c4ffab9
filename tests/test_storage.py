"""Files appear whole or not at all."""

import errno
from pathlib import Path

import pytest

from owl3.errors import InputError
from owl3.storage import atomic_folder, atomic_writer, copy_exact, files_under, read_json, sha256_of, write_atomic


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")
    with pytest.raises(RuntimeError), atomic_writer(path) as handle:
        handle.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert files_under(tmp_path) == [path]


def test_a_failed_folder_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "d") as aside:
        (aside / "f").write_bytes(b"x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_replaces_what_a_killed_run_left(tmp_path: Path) -> None:
    (tmp_path / ".d.partial").mkdir()
    (tmp_path / ".d.partial" / "rest").write_bytes(b"x")
    with atomic_folder(tmp_path / "d") as aside:
        (aside / "f").write_bytes(b"y")
    assert [p.name for p in files_under(tmp_path / "d")] == ["f"]


def test_an_existing_folder_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(InputError, match="exists already"), atomic_folder(tmp_path / "d"):
        pass


def test_a_copy_returns_its_hash(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a", b"z" * 3_000_000)
    assert copy_exact(tmp_path / "a", tmp_path / "sub" / "b") == sha256_of(tmp_path / "sub" / "b")


def test_a_full_disk_is_told_with_what_was_being_written(tmp_path: Path) -> None:
    """The system names no file when a write fails, only when an opening does."""
    with pytest.raises(OSError, match="No space left") as raised, atomic_writer(tmp_path / "x.tar"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(tmp_path / "x.tar")


def test_json_that_was_cut_off_is_told_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": 1')
    with pytest.raises(InputError, match=r"x\.json: not readable as JSON, so it was damaged or cut off"):
        read_json(path)
    path.write_bytes(b'{"a": 1}')
    assert read_json(path) == {"a": 1}
