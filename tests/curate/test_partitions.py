"""A corpus in partitions: cut anywhere, fetched in any order, held by one at a time, it gives the same bytes."""

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from curate.corpus import set_up
from curate.hostile import hostile_server
from owl3.curate import partitions
from owl3.curate.config import CurateConfig, shards_folder
from owl3.curate.partitions import Partition, cut, fetch_partition, is_stale, snapshot, state, states
from owl3.curate.run import curate, ranges_path
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.errors import ConfigError, InputError, StaleError
from owl3.manifest import find_current, read_manifest
from owl3.storage import range_lock


def prepared(workspace: Path, rows: int = 95, per_shard: int = 10) -> CurateConfig:
    """A set whose rows are all dropped before anything is fetched."""
    lines = [f"http://h{n}.example/{n}.jpg\ta picture of thing number {n}\n" for n in range(rows)]
    (workspace / "t.tsv").write_text("".join(lines))
    source = {"name": "web", "files": ["t.tsv"], "header": False, "columns": {"url": "0", "caption": "1"}}
    prepare(SourceConfig.model_validate(source), workspace)
    return CurateConfig.model_validate(
        {
            "name": "web",
            "source": "web",
            "fetch": {"contact": "x"},
            "rows": {"licences": ["none"]},
            "engine": {"number_sample_per_shard": per_shard},
        }
    )


@pytest.mark.parametrize("most", [1, 3, 4, 64])
def test_a_cut_covers_every_shard_once(tmp_path: Path, most: int) -> None:
    parts = cut(prepared(tmp_path), tmp_path, most=most)
    assert len(parts) <= most
    assert [n for part in parts for n in range(part.first, part.last)] == list(range(10))


def test_a_range_outside_the_corpus_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it has 0:10"):
        cut(prepared(tmp_path), tmp_path, only=(10, 12))


def test_partitions_in_any_order_give_the_bytes_of_one_run(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    digest = curate(prepared(whole), whole).digest
    config = prepared(parts)
    for part in reversed(cut(config, parts, most=4)):
        assert state(config, parts, part) == "missing"
        fetched = fetch_partition(config, parts, part)
        assert state(config, parts, part) == "fetched"
        assert fetched.counts.seen == fetched.counts.dropped["licence_not_allowed"]
    assert curate(config, parts).digest == digest
    again = fetch_partition(config, parts, cut(config, parts)[0])
    assert again.was_done
    assert again.counts.seen == 10


@pytest.mark.processes
def test_fetching_in_partitions_at_once_changes_no_byte(tmp_path: Path) -> None:
    digests = []
    for name in ("whole", "parts"):
        workspace = tmp_path / name
        workspace.mkdir()
        with hostile_server() as web:
            source, config = set_up(web, workspace)
            prepare(source, workspace)
            resolve = {"*.owl3.test": f"127.0.0.1:{web.port}"}
            if name == "parts":
                fetch = partial(fetch_partition, config, workspace, resolve=resolve)
                with ThreadPoolExecutor(2) as pool:
                    fetched = list(pool.map(fetch, cut(config, workspace, most=2)))
                said = sum(part.stored_bytes for part in fetched)
            digests.append(curate(config, workspace, resolve=resolve).digest)
    assert digests[0] == digests[1]
    rows = [
        row for table in sorted(workspace.glob("shards/web/0000?.parquet")) for row in pq.read_table(table).to_pylist()
    ]
    as_they_came = [row["bytes"] for row in rows if row["decision"] == "kept" and row["sha256"] == row["media_sha256"]]
    assert said >= sum(as_they_came) > 100_000


def test_what_partitions_have_in_common_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished set of thousands of shards has a manifest of megabytes."""
    config = prepared(tmp_path)
    curate(config, tmp_path)
    looked: list[Path] = []

    def find(folder: Path, *rest: Any) -> Any:
        looked.append(folder)
        return find_current(folder, *rest)

    monkeypatch.setattr(partitions, "find_current", find)
    assert set(states(config, tmp_path, cut(config, tmp_path, most=10))) == {"done"}
    assert len(looked) == 1


def test_a_second_start_of_a_partition_is_refused_and_another_is_not(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    first, second = cut(config, tmp_path, most=2)
    with range_lock(ranges_path(shards_folder(tmp_path, "web")), first.first, first.last):
        with pytest.raises(InputError, match="another process works on them"):
            fetch_partition(config, tmp_path, first, wait=False)
        assert fetch_partition(config, tmp_path, second, wait=False).counts.seen == 45


def test_a_second_start_waits_until_the_first_is_done(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    (whole,) = cut(config, tmp_path, most=1)
    waiting = threading.Thread(target=fetch_partition, args=(config, tmp_path, whole))
    with range_lock(ranges_path(shards_folder(tmp_path, "web")), 3, 4):
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert state(config, tmp_path, whole) == "missing"
    waiting.join(30)
    assert state(config, tmp_path, whole) == "fetched"


def test_what_another_recipe_made_is_stale_and_made_anew_only_when_asked(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    old = curate(config, tmp_path).digest
    changed = config.model_copy(update={"max_drop_fraction": 1.0})
    assert not is_stale(config, tmp_path)
    assert is_stale(changed, tmp_path)
    with pytest.raises(StaleError):
        curate(changed, tmp_path)
    new = curate(changed, tmp_path, renew=True).digest
    assert new != old
    assert read_manifest(tmp_path / "shards" / "web").digest == new


def test_work_begun_with_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    fetch_partition(config, tmp_path, Partition(set="web", first=0, last=2))
    changed = config.model_copy(update={"max_drop_fraction": 1.0})
    with pytest.raises(StaleError, match="--backfill"):
        fetch_partition(changed, tmp_path, Partition(set="web", first=0, last=2))
    with pytest.raises(StaleError, match="--backfill"):
        curate(changed, tmp_path)
    assert curate(changed, tmp_path, renew=True).counts.seen == 95


def test_a_snapshot_is_a_set_of_its_own(tmp_path: Path) -> None:
    config = prepared(tmp_path)
    dated = snapshot(config, date(2026, 11, 22))
    assert dated.name == "web-2026-11-22"
    assert snapshot(config, None) is config
    curate(dated, tmp_path)
    assert state(config, tmp_path, cut(config, tmp_path)[0]) == "missing"
