"""The training process as launchers and schedulers meet it: command lines, SIGTERM, exit codes."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from owl3 import errors
from owl3.cli import main
from owl3.manifest import read_manifest
from owl3.planfile import Plan
from owl3.train import __main__ as entry
from owl3.train.command import TrainCommand
from train.world import make_world, recipe, write_recipe

RECIPES = Path(__file__).parents[2] / "flows" / "recipes"


def command(**changes: object) -> TrainCommand:
    made = TrainCommand(recipe=Path("r.json"), stage="sft", workspace=Path("w"), processes=4)
    return TrainCommand(**{**made.__dict__, **changes})  # type: ignore[arg-type]


def test_every_launcher_gets_the_same_arguments() -> None:
    arguments = command().arguments()
    for launcher in ("torchrun", "deepspeed", "srun"):
        line = list(command().under(launcher))  # type: ignore[arg-type]
        assert line[-len(arguments) :] == arguments
        assert "4" in line
    assert command(processes=1).on_this_machine() == ("owl3.train", arguments)


@pytest.mark.parametrize("name", ["owl3-7b", "owl3-2b", "owl3-1b"])
def test_the_shipped_recipes_say_what_they_would_run(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", str(RECIPES / f"{name}.yaml"), "--dry-run", "--json", "-n", "8", "-w", str(tmp_path)]
    assert main(arguments) == 0
    lines = json.loads(capsys.readouterr().out.splitlines()[-1])["would_run"]
    stages = [line.split("--stage ")[1].split()[0] for line in lines]
    assert stages == ["pretrain", "multi_image", "sft"]
    assert not list(tmp_path.iterdir())


@pytest.mark.processes
def test_sigterm_saves_and_ends_with_3_and_the_same_command_ends_with_the_same_digest(tmp_path: Path) -> None:
    made = recipe(steps=60, save_steps=60, loader_workers=1)
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    for workspace in (stopped, whole):
        workspace.mkdir()
        make_world(workspace, made)
        write_recipe(workspace / "recipe.json", made)
    process = start(stopped)
    metrics = stopped / "runs" / "tiny" / "pretrain" / "metrics.jsonl"
    while process.poll() is None and not (metrics.is_file() and metrics.read_bytes().count(b"\n") >= 3):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGTERM)  # as schedulers do: loader workers get it too
    assert process.wait() == 3
    [checkpoint] = (stopped / "runs" / "tiny" / "pretrain" / "checkpoints").iterdir()
    step = int(checkpoint.name.removeprefix("step-"))
    assert 3 <= step < 60
    proof = json.loads((checkpoint / "trainer.json").read_text())["proof"]
    assert proof == json.loads(Plan.open(stopped / "plans" / "tiny" / "pretrain").proof(step).model_dump_json())
    assert [start(workspace).wait() for workspace in (stopped, whole)] == [0, 0]
    digests = [read_manifest(workspace / "runs" / "tiny" / "pretrain").digest for workspace in (stopped, whole)]
    assert digests[0] == digests[1]


def start(workspace: Path) -> "subprocess.Popen[bytes]":
    arguments = ["--recipe", str(workspace / "recipe.json"), "--stage", "pretrain", "--workspace", str(workspace)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-m", "owl3.train", *arguments], env=env, start_new_session=True)


def test_a_full_disk_wherever_it_is_met_can_be_resumed_and_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "runs/tiny/sft/metrics.jsonl")

    monkeypatch.setattr(entry, "_run", full)
    monkeypatch.setattr(errors, "guard_output", lambda: None)
    assert entry.main(["--recipe", "r.json", "--stage", "sft", "--workspace", "w"]) == 3
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("owl3 train [rank 0]: ")
    assert "runs/tiny/sft/metrics.jsonl: No space left on device; make room and run again" in line


@pytest.mark.processes
def test_a_wrong_recipe_ends_with_2_and_one_line(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(json.dumps({**recipe().model_dump(mode="json"), "stages": []}))
    command = [
        sys.executable,
        "-m",
        "owl3.train",
        "--recipe",
        str(path),
        "--stage",
        "sft",
        "--workspace",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("owl3 train")]
    assert str(path) in line
    assert "stages" in line
