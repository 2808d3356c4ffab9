"""SIGKILL of the worker, of Prefect's server and of both during `pipeline`: the same digests at the end.

The flow runs with its embedded server, so the worker is the command, the server is its child, and both are its group.
A worker whose server is gone may fail or go on; either way the same command finishes the work.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from demo.tiny import write_tiny_recipe

from owl3.pipeline import digests

ROOT = Path(__file__).parents[2]
MOMENTS = (
    ("worker", "shards/scenes/_work/fetch"),
    ("server", "samples/pairs/manifest.json"),
    ("both", "runs/demo/pretrain/checkpoints"),
)
"""Who is killed, and a path that tells when."""

WAIT_S = 900.0


def start(recipe: Path, workspace: Path, home: Path) -> "subprocess.Popen[bytes]":
    environment = {**os.environ, "PREFECT_HOME": str(home), "PREFECT_LOGGING_LEVEL": "ERROR"}
    environment.pop("PREFECT_API_URL", None)
    command = [sys.executable, "-m", "flows.pipeline", "--recipe", str(recipe), "--workspace", str(workspace)]
    return subprocess.Popen(command, env=environment, cwd=ROOT, start_new_session=True)


def server_of(process: "subprocess.Popen[bytes]") -> psutil.Process:
    """The embedded server: the child that listens."""
    for child in psutil.Process(process.pid).children(recursive=True):
        if any("uvicorn" in word or "prefect.server" in word for word in child.cmdline()):
            return child
    raise AssertionError("the flow has no server of its own")


def kill(whom: str, process: "subprocess.Popen[bytes]") -> None:
    if whom == "server":
        server_of(process).kill()
    elif whom == "worker":
        os.kill(process.pid, signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(WAIT_S)


@pytest.mark.processes
def test_killing_worker_server_and_both_changes_no_digest(tmp_path: Path) -> None:
    recipe = write_tiny_recipe(tmp_path / "tiny.yaml")
    assert start(recipe, tmp_path / "undisturbed", tmp_path / "home").wait() == 0
    killed = tmp_path / "killed"
    for number, (whom, sign) in enumerate(MOMENTS):
        process = start(recipe, killed, tmp_path / f"home-{number}")  # as if its database were wiped, too
        deadline = time.monotonic() + WAIT_S
        while not (killed / sign).exists():
            assert process.poll() is None, f"the flow ended before {sign} was there"
            assert time.monotonic() < deadline, f"{sign} did not appear in {WAIT_S:.0f} s"
            time.sleep(0.02)
        kill(whom, process)
    assert start(recipe, killed, tmp_path / "home").wait() == 0
    assert digests(killed) == digests(tmp_path / "undisturbed")
    left = [
        entry.pid for entry in psutil.process_iter(["cmdline"]) if str(killed) in " ".join(entry.info["cmdline"] or [])
    ]
    assert not left, "a killed worker leaves no child behind"
