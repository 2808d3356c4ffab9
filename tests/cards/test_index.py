"""An index answers what reading every row answers, and only as long as it is about what lies there."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.cards import index, purge, retract, runs
from owl3.cards.index import build_indexes, current
from owl3.cards.subjects import understand
from owl3.cards.trace import trace
from owl3.manifest import read_manifest
from owl3.samples import url_sample_id

from .conftest import HOSTS, LICENCES, NUM_URLS, caption, picture, url
from .forge import Row, edit_manifest, edit_rows, reseal


@pytest.fixture(scope="session")
def indexed(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small workspace with indexes; not to be written to."""
    workspace = tmp_path_factory.mktemp("indexed") / "workspace"
    shutil.copytree(golden / "workspace", workspace)
    build_indexes(workspace)
    return workspace


SUBJECTS = [url(3), url(7), url(3).upper(), "http://elsewhere.example.org/", *HOSTS, "example.org", "rds.example.org",
            "owl3.test", *LICENCES]  # fmt: skip


@pytest.mark.parametrize("text", SUBJECTS)
def test_an_indexed_trace_says_what_a_trace_without_index_says(golden: Path, indexed: Path, text: str) -> None:
    plain, quick = (runs.as_data(trace(place, understand(text))) for place in (golden / "workspace", indexed))
    assert str(quick).replace(str(indexed), "") == str(plain).replace(str(golden / "workspace"), "")


KINDS = ("id", "url", "hash")


def _named(number: int, kind: str) -> str:
    if kind == "url":
        return url(number)
    return url_sample_id(url(number), caption(number)) if kind == "id" else hashlib.sha256(picture(number)).hexdigest()


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(numbers=st.sets(st.integers(0, NUM_URLS - 1), min_size=1, max_size=12), kind=st.sampled_from(KINDS))
def test_an_indexed_retraction_hits_what_one_without_index_hits(
    golden: Path, indexed: Path, numbers: set[int], kind: str
) -> None:
    texts = [_named(number, kind) for number in numbers]
    subjects = [understand(text) for text in [*texts, "0" * 64, "1" * 32]]
    plain, quick = (runs.as_data(retract.assess(place, subjects)) for place in (golden / "workspace", indexed))
    assert str(quick).replace(str(indexed), "") == str(plain).replace(str(golden / "workspace"), "")
    assert {subject["text"] for subject in quick["missing"]} >= {"0" * 64, "1" * 32}


@pytest.mark.parametrize("says_so", [True, False])
def test_samples_that_were_built_from_built_ones_are_found_through_indexes(workspace: Path, says_so: bool) -> None:
    """Also where an older index does not say whether there are any."""
    first, second = workspace / "samples" / "pairs", workspace / "samples" / "nested"
    shutil.copytree(first, second)
    before = pq.read_table(first / "00000.parquet")["sample_id"].to_pylist()

    def nest(rows: list[Row]) -> None:
        for row, parent in zip(rows, before, strict=True):
            row |= {"sample_id": hashlib.md5(parent.encode()).hexdigest(), "parents": [parent]}

    edit_rows(second / "00000.parquet", nest)
    reseal(second, name="nested", parents=[read_manifest(first).as_parent().model_dump()])
    plain = trace(workspace, understand(url(3)))
    build_indexes(workspace)
    if not says_so:
        edit_manifest(workspace / "index" / "samples" / "nested", stats={})
    quick = trace(workspace, understand(url(3)))
    assert (plain.built_total, {row["artifact"] for row in plain.built}) == (2, {"nested", "pairs"})
    assert runs.as_data(quick) == runs.as_data(plain)


def test_an_index_holds_no_url_and_no_caption(indexed: Path) -> None:
    for path in (indexed / "index").rglob("*.parquet"):
        assert url(3).encode() not in path.read_bytes()
        assert caption(3).encode() not in path.read_bytes()


def test_the_same_artifact_gives_the_same_index(indexed: Path, workspace: Path) -> None:
    build_indexes(workspace)
    for path in (indexed / "index").rglob("*.parquet"):
        assert path.read_bytes() == (workspace / path.relative_to(indexed)).read_bytes(), path.name


def test_an_index_of_an_artifact_made_anew_is_not_used_and_goes(workspace: Path) -> None:
    build_indexes(workspace)
    impact = retract.assess(workspace, [understand(url(3))])
    retract.bury(workspace, impact, "asked for")
    purge.purge(workspace, impact.ids)
    assert current(workspace, "shards", "tiny") is None
    found = trace(workspace, understand(url(3)))
    assert [row["decision"] for row in found.urls] == ["dropped"]
    build_indexes(workspace)
    assert trace(workspace, understand(url(3))).urls == found.urls


def test_an_index_whose_files_are_not_whole_is_not_used(workspace: Path) -> None:
    build_indexes(workspace)
    path = workspace / "index" / "shards" / "tiny" / "urls.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    assert current(workspace, "shards", "tiny") is None
    assert trace(workspace, understand(url(3))).found


def test_an_index_that_points_at_other_rows_finds_nothing_false(workspace: Path) -> None:
    """What an index says is looked up in the ledger: a damaged one may miss a row, but invents none."""
    build_indexes(workspace)
    folder = workspace / "index" / "shards" / "tiny"
    (folder / "urls.parquet").write_bytes((folder / "hashes.parquet").read_bytes())
    entry = index.read_manifest(folder)
    files = [e.model_copy(update={"bytes": (folder / e.path).stat().st_size}) for e in entry.files]
    (folder / "manifest.json").write_text(entry.model_copy(update={"files": tuple(files)}).model_dump_json())
    assert not trace(workspace, understand(url(3))).urls


def test_indexing_again_does_nothing(workspace: Path) -> None:
    first = build_indexes(workspace)
    before = {path: path.stat().st_mtime_ns for path in (workspace / "index").rglob("*.parquet")}
    assert [made.digest for made in build_indexes(workspace)] == [made.digest for made in first]
    assert {path: path.stat().st_mtime_ns for path in (workspace / "index").rglob("*.parquet")} == before
