"""`make soak`: kill -9 a training process again and again, also while it saves; what it learns must not change.

Each stage is killed at least seven times, at moments drawn from a fixed seed: after some number of logged steps, or as
soon as a checkpoint is being written. Run again to its end, it must leave the uninterrupted run's manifest.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from train.world import STAGES, make_world, recipe, write_recipe

from owl3.manifest import read_manifest
from owl3.train.stages import TrainRecipe

KILLS_PER_STAGE = 7
STEPS = 60


@pytest.fixture(scope="module", params=["torch", "deepspeed"])
def made(request: pytest.FixtureRequest) -> TrainRecipe:
    return recipe(steps=STEPS, engine=request.param, save_steps=3, loader_workers=1)


def start(workspace: Path, stage: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "owl3.train", "--recipe", str(workspace / "recipe.json"), "--stage", stage]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    # A session of its own, so that killing the group takes loader workers along, as a machine's end would.
    return subprocess.Popen([*command, "--workspace", str(workspace)], env=env, start_new_session=True)


def wait_for_moment(process: "subprocess.Popen[bytes]", folder: Path, while_saving: bool, steps: int) -> bool:
    """Wait until a checkpoint is being written, or `steps` more steps are logged; False when the run ended first."""
    metrics = folder / "metrics.jsonl"

    def logged() -> int:
        return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0

    before: int | None = None
    while process.poll() is None:
        if while_saving and any((folder / "checkpoints").glob(".step-*.partial")):
            return True
        if not while_saving:
            # Resuming cuts the file back first, so the count is taken when it moves.
            now = logged()
            before = now if before is None or now < before else before
            if now >= before + steps:
                return True
        time.sleep(0.002)
    return False


def test_final_weights_are_those_of_the_uninterrupted_run(made: TrainRecipe, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for workspace in (whole, killed):
        workspace.mkdir()
        make_world(workspace, made)
        write_recipe(workspace / "recipe.json", made)
    dice = random.Random(0)
    kills = 0
    for stage in STAGES:
        assert start(whole, stage).wait() == 0
        folder = killed / "runs" / made.name / stage
        for attempt in range(KILLS_PER_STAGE):
            process = start(killed, stage)
            if wait_for_moment(process, folder, while_saving=attempt % 2 == 0, steps=dice.randint(1, 8)):
                time.sleep(dice.random() * 0.01)
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
            process.wait()
        assert start(killed, stage).wait() == 0
        assert read_manifest(folder).digest == read_manifest(whole / "runs" / made.name / stage).digest
    assert kills >= 20
