"""`make soak`: kill -9 a training process again and again, also while it saves; what it learns must not change.

Each stage is killed twenty times (with DeepSpeed, which takes seconds to start, four times), at moments drawn from a
fixed seed: after some number of logged steps, or as soon as a checkpoint is being written. Run again to its end, it
must leave the uninterrupted run's manifest. Processes are forked from a server that has imported torch once, so that
each of them reaches its first step within a second.
"""

import os
import random
import signal
import time
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
from train.world import STAGES, make_world, recipe, write_recipe

from owl3.manifest import read_manifest
from owl3.train.__main__ import main
from owl3.train.stages import TrainRecipe

KILLS_PER_STAGE = {"torch": 20, "deepspeed": 4}
STEPS = 90


@pytest.fixture(scope="module", params=["torch", "deepspeed"])
def made(request: pytest.FixtureRequest) -> TrainRecipe:
    # Three steps from checkpoint to checkpoint: most kills come before the next one, so most runs repeat some steps.
    return recipe(steps=STEPS, engine=request.param, save_steps=3, loader_workers=1)


def train(workspace: str, stage: str) -> None:
    """What the forked process does: the training process's own entry point."""
    os.setsid()  # so that killing the group takes loader workers along, as a machine's end would
    raise SystemExit(main(["--recipe", f"{workspace}/recipe.json", "--stage", stage, "--workspace", workspace]))


def start(workspace: Path, stage: str) -> ForkServerProcess:
    os.environ["DS_ACCELERATOR"] = "cpu"
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["torch", "transformers", "deepspeed", "owl3.train.run", "owl3.train.deepspeed_engine"]
    )
    process = context.Process(target=train, args=(str(workspace), stage))
    process.start()
    return process


def ended_with(process: ForkServerProcess) -> int | None:
    process.join()
    return process.exitcode


def wait_for_moment(process: ForkServerProcess, folder: Path, while_saving: bool, steps: int) -> bool:
    """Wait until a checkpoint is being written, or `steps` more steps are logged; False when the run ended first."""
    metrics = folder / "metrics.jsonl"

    def logged() -> int:
        return metrics.read_bytes().count(b"\n") if metrics.is_file() else 0

    # Resuming cuts the file back before it goes on, so the count is taken anew whenever it falls.
    stamp, before = metrics.stat().st_ino if metrics.is_file() else 0, None
    while process.is_alive():
        if while_saving and any((folder / "checkpoints").glob(".step-*.partial")):
            return True
        if not while_saving and metrics.is_file() and metrics.stat().st_ino != stamp:
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
    for stage in STAGES:
        assert ended_with(start(whole, stage)) == 0
        folder = killed / "runs" / made.name / stage
        kills = saving = 0
        wanted = KILLS_PER_STAGE[made.stage(stage).engine]
        while kills < wanted:
            process = start(killed, stage)
            while_saving = kills % 4 == 3
            # A moment before the next checkpoint: the stage must not end before it was killed often enough.
            if wait_for_moment(process, folder, while_saving, steps=dice.randint(1, 2)):
                time.sleep(dice.random() * 0.01)
                os.killpg(os.getpgid(process.pid or 0), signal.SIGKILL)
                kills += 1
                saving += while_saving
            code = ended_with(process)
            assert code == -signal.SIGKILL, f"{stage}: ended with {code} after {kills} of {wanted} kills"
        assert ended_with(start(killed, stage)) == 0
        assert saving >= wanted // 4
        assert read_manifest(folder).digest == read_manifest(whole / "runs" / made.name / stage).digest
