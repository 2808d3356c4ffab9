"""A tar read once says what reading it twice would."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.cards import tarpass
from owl3.cards.tarpass import TarPass
from owl3.errors import InputError
from owl3.shards import ShardWriter, iter_members

SIZES = st.lists(st.integers(0, 3000), max_size=12)


def _read(path: Path) -> tuple[list[tuple[str, int, bytes]], TarPass]:
    members = TarPass(path)
    return [(name, offset, bytes(data)) for name, offset, data in members], members


def _write(path: Path, sizes: list[int]) -> bytes:
    with ShardWriter(path) as tar:
        for number, size in enumerate(sizes):
            tar.add(f"k{number}", {"jpg": bytes([number]) * size, "txt": b"t"})
    return path.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(SIZES, st.integers(512, 4096))
def test_a_pass_finds_the_same_members_and_the_hash_of_the_file(
    tmp_path: Path, sizes: list[int], window_bytes: int
) -> None:
    path = tmp_path / "00000.tar"
    data = _write(path, sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tarpass, "WINDOW_BYTES", window_bytes)  # members that stand across windows, or are larger
        found, members = _read(path)
    assert found == [(member.name, member.offset, content) for member, content in iter_members(path)]
    assert members.is_plain
    assert members.sha256 == hashlib.sha256(data).hexdigest()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(SIZES, st.integers(0, 40_000))
def test_a_cut_off_tar_is_named_and_hashed_all_the_same(tmp_path: Path, sizes: list[int], length: int) -> None:
    path = tmp_path / "00000.tar"
    data = _write(path, sizes)[:length]
    path.write_bytes(data)
    members = TarPass(path)
    found: list[str] = []
    with contextlib.suppress(InputError):
        for name, _, _ in members:
            found.append(name)
    whole = _names_before_damage(path)
    assert found in (whole, whole[:-1])  # the last one's padding may be cut off
    assert members.sha256 == hashlib.sha256(data).hexdigest()


def _names_before_damage(path: Path) -> list[str]:
    names: list[str] = []
    with contextlib.suppress(InputError):
        for member, _ in iter_members(path):
            names.append(member.name)
    return names


@pytest.mark.parametrize("data", [b"", b"x" * 100])
def test_what_is_no_tar_is_said_to_be_none(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "00000.tar"
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a whole tar"):
        _read(path)


def test_a_tar_of_another_tool_is_read_by_tarfile_and_hashed(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in ("ä.jpg", "ä.txt"):
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 700, 12
            tar.addfile(info, io.BytesIO(name.encode() * 200))
    found, members = _read(path)
    assert [(name, content) for name, _, content in found] == [(m.name, data) for m, data in iter_members(path)]
    assert not members.is_plain
    assert members.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
