"""Tars are deterministic, readable by offset and by webdataset, and appear whole or not at all."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.errors import InputError
from owl3.shards import (
    SAMPLE_INDEX,
    ShardWriter,
    iter_members,
    iter_samples,
    plain_header,
    read_member,
    tar_header,
    write_index,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.dictionaries(st.sampled_from(["json", "0.jpg", "1.jpg"]), st.binary(max_size=2000), min_size=1)))
def test_what_goes_in_comes_out_by_offset_and_in_order(tmp_path: Path, samples: list[dict[str, bytes]]) -> None:
    path = tmp_path / "00000.tar"
    with ShardWriter(path) as tar:
        places = [tar.add(f"k{i}", members) for i, members in enumerate(samples)]
    assert list(iter_samples(path)) == [(f"k{i}", members) for i, members in enumerate(samples)]
    for members, found in zip(samples, places, strict=True):
        assert [read_member(path, m.offset, m.num_bytes) for m in found] == list(members.values())


def test_the_same_samples_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.tar", "b.tar"):
        with ShardWriter(tmp_path / name) as tar:
            tar.add("k", {"json": b"{}", "jpg": b"\xff"})
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.tuples(st.text("ab9é/_.", min_size=1, max_size=120), st.binary(max_size=1500))))
def test_the_bytes_are_those_of_tarfile(tmp_path: Path, files: list[tuple[str, bytes]]) -> None:
    expected = io.BytesIO()
    with tarfile.open(fileobj=expected, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, (stem, data) in enumerate(files):
            info = tarfile.TarInfo(f"{number}.{stem}")
            info.size = len(data)
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:  # a name that USTAR can't hold
                with pytest.raises(ValueError):
                    tar_header(info.name, 0)
                return
    with ShardWriter(tmp_path / "x.tar") as writer:
        for number, (stem, data) in enumerate(files):
            writer.add(f"{number}", {stem: data})
    assert (tmp_path / "x.tar").read_bytes() == expected.getvalue()
    assert writer.sha256 == hashlib.sha256(expected.getvalue()).hexdigest()


def test_webdataset_reads_them_as_they_are(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "00000.tar") as tar:
        tar.add("k", {"json": b"{}", "0.jpg": b"\xff"})
    (sample,) = wds.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False)
    assert (sample["__key__"], sample["0.jpg"]) == ("k", b"\xff")


@pytest.mark.parametrize("key", ["a.b", "a/b", "..", "", "a\\b"])
def test_a_key_that_readers_would_split_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="dots and separators"), ShardWriter(tmp_path / "x.tar") as tar:
        tar.add(key, {"json": b""})


def test_a_failure_leaves_no_shard(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path / "x.tar") as tar:
        tar.add("k", {"json": b"{}"})
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_shard_is_an_error_by_offset_and_by_scan(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with ShardWriter(path) as tar:
        (member,) = tar.add("k", {"jpg": bytes(5000)})
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(InputError, match="truncated"):
        read_member(path, member.offset, member.num_bytes)
    with pytest.raises(InputError):
        list(iter_samples(path))


def test_an_index_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    row = {"sample_id": "0" * 32, "decision": "kept", "tiles": [1, 7], "media": [{"path": "a.tar", "offset": 512}]}
    write_index(tmp_path / "a.parquet", [row], SAMPLE_INDEX)
    write_index(tmp_path / "b.parquet", [row], SAMPLE_INDEX)
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_of_others_are_read_too(tmp_path: Path, form: int) -> None:
    names = ["a.json", "a.jpg", f"{'c' * 60}/{'b' * 60}.json", "ä.txt"]
    path = tmp_path / "00000.tar"
    with tarfile.open(path, "w", format=form) as tar:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = number * 400
            tar.addfile(info, io.BytesIO(bytes([number]) * info.size))
    found = list(iter_members(path))
    with tarfile.open(path) as tar:
        assert [(m.name, m.offset, m.num_bytes) for m, _ in found] == [(i.name, i.offset_data, i.size) for i in tar]
    assert [data for _, data in found] == [bytes([number]) * number * 400 for number in range(len(names))]


def test_a_damaged_header_is_not_read_as_a_file(tmp_path: Path) -> None:
    path = tmp_path / "00000.tar"
    with ShardWriter(path) as tar:
        tar.add("a", {"txt": b"one"})
    data = bytearray(path.read_bytes())
    data[130] ^= 1  # a digit of the size
    path.write_bytes(data)
    with pytest.raises(InputError, match="not a whole tar"):
        list(iter_members(path))


@given(st.text("abc.", min_size=1, max_size=30), st.integers(0, 10**9), st.integers(0, 511), st.integers(1, 255))
def test_a_header_with_one_other_byte_is_no_plain_header(name: str, size: int, place: int, change: int) -> None:
    header = bytearray(tar_header(name, size))
    assert plain_header(bytes(header)) == (name, size)
    header[place] ^= change
    assert plain_header(bytes(header)) == (None, 0)
