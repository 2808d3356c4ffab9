"""Tars from a local disk or a store: the same bytes, each block fetched once while it is kept, bounded memory."""

import itertools
from pathlib import Path

import fsspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from owl3.data.ranges import LocalTars, RemoteTars
from owl3.errors import InputError, StaleError
from owl3.planfile import Plan
from owl3.tokens import TextTokenizer
from tests.data.conftest import MakeSamples
from tests.data.test_loader import load
from tests.data.test_plan import config, planned

DATA = bytes(i * 7 % 251 for i in range(10_000))


@pytest.fixture(scope="module")
def url() -> str:
    """A store with one tar."""
    files = fsspec.filesystem("memory")
    files.pipe_file("/bucket/a.tar", DATA)
    return "memory://bucket"


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9_998), st.integers(1, 4_000)), min_size=1, max_size=20))
def test_any_range_is_the_files_bytes(ranges: list[tuple[int, int]]) -> None:
    fsspec.filesystem("memory").pipe_file("/bucket/a.tar", DATA)
    tars = RemoteTars("memory://bucket", block_bytes=512, cache_bytes=2048)
    for start, length in ranges:
        end = min(start + length, len(DATA))
        assert tars.read("a.tar", start, end, len(DATA)) == DATA[start:end]


def test_a_kept_block_is_fetched_once_and_no_more_are_kept_than_asked(url: str) -> None:
    tars = RemoteTars(url, block_bytes=1000, cache_bytes=3000)
    for start in (0, 10, 999, 1500, 2999):
        tars.read("a.tar", start, start + 1, len(DATA))
    assert tars.fetched_bytes == 3000
    tars.read("a.tar", 5000, 5001, len(DATA))  # pushes the first block out
    tars.read("a.tar", 1, 2, len(DATA))
    assert tars.fetched_bytes == 5000


def test_another_size_or_no_file_is_refused(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(DATA)
    for tars in (RemoteTars(url), LocalTars(tmp_path)):
        with pytest.raises(StaleError, match=r"a\.tar: it has 10000 bytes, planned were 9999"):
            tars.read("a.tar", 0, 1, 9_999)
        with pytest.raises(InputError, match=r"b\.tar: missing"):
            tars.read("b.tar", 0, 1, 5)
        tars.close()


def test_a_tar_that_goes_away_while_it_is_read_is_named() -> None:
    files = fsspec.filesystem("memory")
    files.pipe_file("/leaving/a.tar", DATA)
    tars = RemoteTars("memory://leaving", block_bytes=1000)
    tars.read("a.tar", 0, 1, len(DATA))
    files.rm("/leaving/a.tar")
    with pytest.raises(InputError, match=r"a\.tar: missing; upload it again"):
        tars.read("a.tar", 5000, 5001, len(DATA))


@pytest.fixture
def plan(workspace: Path, make_samples: MakeSamples) -> Plan:
    make_samples("photos", 40, per_shard=10)
    mixture = {"datasets": [{"name": "photos"}]}
    return planned(workspace, config(mixture=mixture, steps=5, shuffle="groups", shard_group=2, max_tokens=300))


def test_batches_are_the_same_from_a_store(plan: Plan, workspace: Path, tokenizer: TextTokenizer) -> None:
    files = fsspec.filesystem("memory")
    for tar in workspace.glob("samples/*/*.tar"):
        files.pipe_file(f"/far/samples/{tar.parent.name}/{tar.name}", tar.read_bytes())
    here = load(plan, workspace, tokenizer)
    there = load(plan, workspace, tokenizer, tars_url="memory://far")
    assert [b.sample_ids for s in here for b in s.micro_batches] == [
        b.sample_ids for s in there for b in s.micro_batches
    ]


def test_shard_groups_are_read_one_after_another(plan: Plan) -> None:
    shards = [plan.place(position).shard // 2 for position in plan.order.tolist()]
    assert sum(one != other for one, other in itertools.pairwise(shards)) == 1


def test_grouped_reading_fetches_each_block_once(plan: Plan, workspace: Path) -> None:
    """The cache holds one group of shards: shuffled inside it, nothing is fetched twice."""
    files = fsspec.filesystem("memory")
    sizes = {}
    for tar in workspace.glob("samples/photos/*.tar"):
        files.pipe_file(f"/near/samples/photos/{tar.name}", tar.read_bytes())
        sizes[tar.name] = tar.stat().st_size
    tars = RemoteTars("memory://near", block_bytes=4096, cache_bytes=2 * max(sizes.values()) + 4 * 4096)
    for position in plan.order.tolist():
        place = plan.place(position)
        name = plan.header.datasets[0].shards[place.shard].name
        tars.read(f"samples/photos/{name}.tar", place.start, place.end, place.shard_bytes)
    assert tars.fetched_bytes <= sum(sizes.values())
