"""Cancelling a flow run ends the training process it had started, and leaves what the next run goes on from."""

import json
from pathlib import Path
from typing import Any

import psutil
import pytest
from prefect_world import cancel, command_line, deploy, start, started_by, state, wait_until, worker
from train.world import make_world, recipe

from owl3.manifest import read_manifest

STEPS = 600
POOL = "cancelling"
WAIT_S = 200.0


@pytest.mark.processes
@pytest.mark.xdist_group("prefect")
def test_a_cancelled_run_ends_its_children_and_the_next_one_goes_on(
    prefect_environment: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    parameters = write_world(workspace)
    stage = workspace / "runs" / "tiny" / "pretrain"
    metrics = stage / "metrics.jsonl"
    with worker(POOL, prefect_environment, tmp_path / "worker.log") as process:
        deploy("train", POOL)
        first = start("train", parameters)
        wait_until(lambda: state(first).is_final() or lines(metrics) >= 3, process, WAIT_S)
        assert state(first).is_running(), state(first).message
        family = started_by(process)
        assert "owl3.train " in " ".join(map(command_line, family)), "the stage is a process of its own"
        cancel(first)
        wait_until(lambda: state(first).is_final(), process, WAIT_S)
        assert state(first).is_cancelled()
        _, alive = psutil.wait_procs(family, timeout=60)
        assert not alive, [child.cmdline() for child in alive]
        assert not started_by(process), "neither a child nor a zombie is left"
        [checkpoint] = (stage / "checkpoints").iterdir()
        assert 3 <= int(checkpoint.name.removeprefix("step-")) < STEPS, "saved where it stood, and not tried again"
        second = start("train", parameters)
        wait_until(lambda: state(second).is_final(), process, WAIT_S)
        assert state(second).is_completed(), state(second).message
    assert read_manifest(stage).stats["steps"] == STEPS
    numbers = [json.loads(line)["step"] for line in metrics.read_text().splitlines()]
    assert numbers == list(range(1, STEPS + 1)), "no step was taken twice, none is missing"


def write_world(workspace: Path) -> dict[str, Any]:
    """A stage that only a cancellation stops early, and what the flow is given for it."""
    made = recipe(steps=STEPS, save_steps=STEPS, loader_workers=1)
    make_world(workspace, made)
    given = made.model_dump(mode="json", exclude_defaults=True) | {"tokenizer": {"name": "words", "folder": "here"}}
    path = workspace / "tiny.yaml"
    path.write_text(json.dumps(given))  # JSON is YAML
    return {"recipe": str(path), "workspace": str(workspace), "only": ["pretrain"]}


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.is_file() else 0
