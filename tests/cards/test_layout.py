"""A tar whose table says what lies in it is read without parsing, and anything else in it is seen."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.cards import layout
from owl3.cards.layout import LaidOut, NotLaidOut
from owl3.shards import ShardWriter, iter_members

SIZES = st.lists(st.integers(0, 3000), max_size=12)
SHARED = [HealthCheck.function_scoped_fixture]


def _write(path: Path, sizes: list[int]) -> list[int]:
    """Two members per size, the second with a name as long as a header holds; returns the sizes of all."""
    with ShardWriter(path) as tar:
        for number, size in enumerate(sizes):
            tar.add(f"k{number}", {"jpg": bytes([number]) * size, "x" * (99 - len(f"k{number}")): b"t"})
    return [size for one in sizes for size in (one, 1)]


def _read(path: Path, sizes: list[int]) -> tuple[list[tuple[bytes, int, bytes]], str]:
    members = LaidOut(path, np.array(sizes, np.int64))
    found = [(members.name(number), bytes(data)) for views in members for number, data in enumerate(views)]
    assert [name for name, _ in found] == members.names
    places = zip(found, members.offsets.tolist(), strict=True)
    return [(name, offset, data) for (name, data), offset in places], members.sha256


@settings(suppress_health_check=SHARED, max_examples=40)
@given(SIZES, st.integers(512, 4096), st.integers(1, 9))
def test_the_same_members_are_found_as_by_parsing(
    tmp_path: Path, sizes: list[int], window_bytes: int, headers: int
) -> None:
    path = tmp_path / "00000.tar"
    all_sizes = _write(path, sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "WINDOW_BYTES", window_bytes)
        patch.setattr(layout, "HEADERS", headers)
        found, sha256 = _read(path, all_sizes)
    assert found == [(member.name.encode(), member.offset, content) for member, content in iter_members(path)]
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@settings(suppress_health_check=SHARED, max_examples=60)
@given(st.data())
def test_a_byte_changed_outside_of_files_is_seen(tmp_path: Path, data: st.DataObject) -> None:
    """In headers and behind the last file; in the padding it changes the hash, which is all that covers it."""
    path = tmp_path / "00000.tar"
    sizes = _write(path, [700, 0, 512])
    content = bytearray(path.read_bytes())
    places = [member.offset - 512 for member, _ in iter_members(path)]
    end = places[-1] + 1024
    at = data.draw(st.sampled_from([*(place + within for place in places for within in range(512)), end, end + 1500]))
    content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        names = [name for name, *_ in _read(path, sizes)[0]]
    except NotLaidOut:
        return
    whole = [member.name.encode() for member, _ in iter_members(path)]  # its checksum would have to be another
    pytest.fail(f"byte {at} changed, and {names} found as by parsing: {names == whole}")


@pytest.mark.parametrize("change", [-512, -1, 1, 512, 10240])
def test_a_file_of_another_length_is_not_read(tmp_path: Path, change: int) -> None:
    path = tmp_path / "00000.tar"
    sizes = _write(path, [700])
    data = path.read_bytes()
    path.write_bytes(data[:change] if change < 0 else data + bytes(change))
    with pytest.raises(NotLaidOut):
        _read(path, sizes)


@pytest.mark.parametrize(
    "sizes", [[], [700], [1, 700], [699, 1], [700, 1, 0], [-1, 1], [2**62, 2**62], [2**33 + 700, 1]]
)
def test_other_sizes_than_the_tar_has_are_seen(tmp_path: Path, sizes: list[int]) -> None:
    path = tmp_path / "00000.tar"
    _write(path, [700])
    with pytest.raises(NotLaidOut):
        _read(path, sizes)
