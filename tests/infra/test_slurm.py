"""The Slurm scripts, run with something in the place of Slurm: what is called with what, and who hears of a signal."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SLURM = Path(__file__).parents[2] / "infra" / "slurm"

OWL3 = """#!/bin/sh
[ "$1" = launch ] || { echo "owl3 $@" >> "$SEEN"; exit 0; }
echo "srun --ntasks 16 python -m owl3.train --stage 'pre train'"
"""
SCONTROL = """#!/bin/sh
[ "$1" = show ] && { echo node-7; echo node-8; exit 0; }
echo "scontrol $@" >> "$SEEN"
"""
SRUN = f"""#!{sys.executable}
import os, signal, sys
seen = open(os.environ["SEEN"], "a", buffering=1)
def save(*_):
    print("saved", file=seen)
    sys.exit(3)
signal.signal(signal.SIGTERM, save)
print("srun", *sys.argv[1:], os.environ["MASTER_ADDR"], file=seen)
sys.exit(int(os.environ["ENDS"])) if "ENDS" in os.environ else signal.pause()
"""


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The variables of a job, and a PATH on which its programs tell in the file SEEN how they were called."""
    for name, text in (("owl3", OWL3), ("scontrol", SCONTROL), ("srun", SRUN)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_JOB_ID": "42", "SLURM_NTASKS": "16", "SLURM_ARRAY_TASK_ID": "3"}
    (tmp_path / "seen").touch()
    return job | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "OWL3_WORKSPACE": "/w",
        "SEEN": str(tmp_path / "seen"),
    }


def seen(slurm: dict[str, str]) -> list[str]:
    return Path(slurm["SEEN"]).read_text().splitlines()


def test_a_training_that_is_near_its_limit_saves_and_is_queued_again(slurm: dict[str, str]) -> None:
    command = ["bash", str(SLURM / "train.sbatch"), "recipe.yaml", "pretrain"]
    with subprocess.Popen(command, env=slurm) as script:
        deadline = time.monotonic() + 60
        while not seen(slurm):
            assert script.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        script.send_signal(signal.SIGUSR1)
        assert script.wait(60) == 3
    called = "srun --ntasks 16 python -m owl3.train --stage pre train node-7"
    assert seen(slurm) == [called, "saved", "scontrol requeue 42"]


@pytest.mark.parametrize(("code", "again"), [(0, False), (1, False), (2, False), (3, True)])
def test_only_a_training_that_can_go_on_is_queued_again(code: int, again: bool, slurm: dict[str, str]) -> None:
    command = ["bash", str(SLURM / "train.sbatch"), "recipe.yaml", "pretrain"]
    done = subprocess.run(command, env=slurm | {"ENDS": str(code)}, check=False)
    assert done.returncode == code
    assert ("scontrol requeue 42" in seen(slurm)) is again


def test_an_array_task_curates_the_set_of_its_number(slurm: dict[str, str]) -> None:
    subprocess.run(["bash", str(SLURM / "curate.sbatch"), "recipe.yaml"], env=slurm, check=True)
    subprocess.run(["bash", str(SLURM / "eval.sbatch"), "demo"], env=slurm, check=True)
    assert seen(slurm) == ["owl3 curate recipe.yaml --only 3", "owl3 eval --watch /w/runs/demo"]
