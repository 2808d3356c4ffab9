"""Files appear whole or not at all."""

from pathlib import Path

import pytest

from owl3.errors import InputError
from owl3.storage import atomic_folder, atomic_writer, copy_exact, files_under, sha256_of, write_atomic


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
