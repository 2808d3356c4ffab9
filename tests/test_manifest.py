"""A manifest means done; its digest depends on content, not on times or hosts."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from owl3.errors import InputError, StaleError
from owl3.manifest import Counts, Manifest, find_current, read_manifest, verify_files, write_manifest


def _artifact(folder: Path, **extra: object) -> Manifest:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.bin").write_bytes(b"bytes")
    (folder / "times.json").write_text(str(extra.pop("time", 1)))
    counts = Counts(seen=3, kept=2, dropped={"not_found": 1})
    return write_manifest(
        folder, kind="shards", name="x", counts=counts, recipe={"a": 1}, volatile=["times.json"], **extra
    )  # type: ignore[arg-type]


def test_counts_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValidationError, match="not conserved"):
        Counts(seen=3, kept=2)


def test_the_digest_ignores_times_and_volatile_files(tmp_path: Path) -> None:
    assert _artifact(tmp_path / "a", time=1).digest == _artifact(tmp_path / "b", time=2, started="2020").digest


def test_one_changed_byte_is_found(tmp_path: Path) -> None:
    manifest = _artifact(tmp_path)
    assert verify_files(tmp_path, manifest) == []
    (tmp_path / "data.bin").write_bytes(b"Bytes")
    assert verify_files(tmp_path, manifest) == [f"{tmp_path / 'data.bin'}: content differs from its manifest"]


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    _artifact(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(path.read_text().replace('"kept": 2', '"kept": 1').replace('"not_found": 1', '"not_found": 2'))
    with pytest.raises(InputError, match="does not match its digest"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_not_done(tmp_path: Path) -> None:
    assert find_current(tmp_path, {}, []) is None
    with pytest.raises(InputError, match="not finished"):
        read_manifest(tmp_path)


def test_another_recipe_is_stale_and_says_which_key(tmp_path: Path) -> None:
    manifest = _artifact(tmp_path)
    assert find_current(tmp_path, {"a": 1}, []) == manifest
    with pytest.raises(StaleError, match="differs in a"):
        find_current(tmp_path, {"a": 2}, [])


def test_other_parents_are_stale(tmp_path: Path) -> None:
    manifest = _artifact(tmp_path)
    with pytest.raises(StaleError, match="other parents"):
        find_current(tmp_path, {"a": 1}, [manifest])
