"""Kill the whole chain with SIGKILL at five moments; what it ends with must be what an undisturbed run ends with."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from demo.tiny import write_tiny_recipe

from owl3.pipeline import digests

MOMENTS = (
    ("fetching", "shards/scenes/_work/fetch", "parent"),
    ("building", "samples/pairs/manifest.json", "group"),
    ("training", "runs/demo/pretrain/checkpoints", "parent"),
    ("handing over", "runs/demo/multi_image/metrics.jsonl", "group"),
    ("evaluating", "runs/demo/sft/evals/requests", "parent"),
)
"""What the chain is doing, a path that tells so, and who is killed: the command alone, or its process group."""

WAIT_S = 600.0


def start(recipe: Path, workspace: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "owl3", "run", str(recipe), "--workspace", str(workspace)]
    return subprocess.Popen(command, start_new_session=True)


def kill_when(process: "subprocess.Popen[bytes]", sign: Path, whom: str) -> None:
    """Wait for a file to appear, then kill."""
    deadline = time.monotonic() + WAIT_S
    while not sign.exists():
        assert process.poll() is None, f"the chain ended before {sign} was there"
        assert time.monotonic() < deadline, f"{sign} did not appear in {WAIT_S:.0f} s"
        time.sleep(0.02)
    if whom == "group":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        os.kill(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.processes
def test_a_chain_killed_at_five_moments_ends_with_the_same_digests(tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path / "tiny.yaml")
    assert start(recipe, tmp_path / "undisturbed").wait() == 0
    killed = tmp_path / "killed"
    for _, sign, whom in MOMENTS:
        kill_when(start(recipe, killed), killed / sign, whom)
    assert start(recipe, killed).wait() == 0
    assert digests(killed) == digests(tmp_path / "undisturbed")
