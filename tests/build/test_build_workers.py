"""Several processes write one artifact; one that dies stops the build, which can go on."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from owl3.build import workers
from owl3.build.draw import Run
from owl3.build.run import build
from owl3.build.write import ShardBuilder
from owl3.errors import Interrupted
from tests.build.test_build_run import config, made_bytes


def die(_run: Run) -> None:
    """What a worker does that is killed for its memory."""
    os._exit(137)


@pytest.mark.processes
def test_a_worker_that_dies_leaves_what_the_next_run_goes_on_with(
    workspace: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(40)
    cfg = config("caption", shards=["photos"], samples_per_shard=10)
    with monkeypatch.context() as patched, pytest.raises(Interrupted, match="wrote shard 1; run it again to go on"):
        patched.setattr(workers, "_write_in_worker", die)
        build(cfg, workspace, processes=2)
    assert not (workspace / "samples/made/manifest.json").exists()
    build(cfg, workspace, processes=1)
    resumed = made_bytes(workspace)
    (workspace / "samples/made").rename(workspace / "samples/resumed")
    build(cfg, workspace, processes=1)
    assert made_bytes(workspace) == resumed


@pytest.mark.processes
def test_this_process_writes_while_the_others_start(
    workspace: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(40)
    here, write = list[int](), ShardBuilder.write

    def noted(self: ShardBuilder, run: Run) -> None:
        here.append(run.shard)
        write(self, run)

    monkeypatch.setattr(ShardBuilder, "write", noted)
    manifest = build(config("caption", shards=["photos"], samples_per_shard=10), workspace, processes=2)
    assert manifest.counts.kept == 40
    assert here[0] == 0  # and the other process, which starts unpatched, gets the next one
    assert 1 not in here
