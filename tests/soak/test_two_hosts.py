"""Two hosts train together until the cable between them is cut: both end in time and say which rank, one goes on alone.

The hosts are network namespaces with a veth pair between them, so this needs root on Linux with iproute2. Nothing but
the training's own messages crosses the wire; the workspace is the file system that both see.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from train.world import make_world, recipe, write_recipe

from owl3 import lifeline
from owl3.manifest import read_manifest
from owl3.train.command import MODULE, TORCHRUN

STEPS = 400
DEADLINE_S = 10.0
LATEST_S = 120.0
"""A phase's deadline, a moment for the note, and what torchrun needs to gather its ranks, on a loaded machine."""

PORT = 29517  # of a namespace of its own: nobody else is there


@dataclass(frozen=True)
class Host:
    """A network namespace with one end of the cable."""

    name: str
    link: str
    address: str

    def run(self, *command: str) -> list[str]:
        return ["ip", "netns", "exec", self.name, *command]


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts and the cable between them."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2, to make network namespaces")
    made = [Host(f"owl3-{os.getpid()}-{n}", f"o{os.getpid()}n{n}", f"10.77.0.{n + 1}") for n in range(2)]
    try:
        for host in made:
            if subprocess.run(["ip", "netns", "add", host.name], capture_output=True, check=False).returncode:
                pytest.skip("this machine allows no network namespaces")
            ip("-n", host.name, "link", "set", "lo", "up")
        one, two = made
        ip("-n", one.name, "link", "add", one.link, "type", "veth", "peer", "name", two.link, "netns", two.name)
        for host in made:
            ip("-n", host.name, "address", "add", f"{host.address}/24", "dev", host.link)
            ip("-n", host.name, "link", "set", host.link, "up")
        yield one, two
    finally:
        for host in made:
            subprocess.run(["ip", "netns", "delete", host.name], capture_output=True, check=False)


def start(host: Host, rank: int, master: Host, workspace: Path, log: Path) -> "subprocess.Popen[bytes]":
    """torchrun on one of two hosts, one rank each."""
    where = ["--nnodes", "2", "--node-rank", str(rank), "--nproc-per-node", "1", "--monitor-interval", "0.2"]
    where += ["--master-addr", master.address, "--master-port", str(PORT), "--module", MODULE]
    command = lifeline.wrap(host.run(sys.executable, "-m", TORCHRUN, *where, *arguments(workspace)))
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": host.link, "OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"}
    with log.open("wb") as output:
        return subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)


def arguments(workspace: Path) -> list[str]:
    made = ["--recipe", str(workspace / "recipe.json"), "--stage", "pretrain", "--workspace", str(workspace)]
    return [*made, "--timeout", f"{DEADLINE_S:g}"]


@pytest.mark.processes
@pytest.mark.parametrize("engine", ["torch", "deepspeed"])
def test_a_host_that_is_cut_off_ends_both_and_one_goes_on_alone(
    engine: str, hosts: tuple[Host, Host], tmp_path: Path
) -> None:
    made = recipe(steps=STEPS, save_steps=5, engine=engine)
    make_world(tmp_path, made)
    write_recipe(tmp_path / "recipe.json", made)
    stage = tmp_path / "runs" / "tiny" / "pretrain"
    logs = [tmp_path / f"host-{number}.log" for number in range(2)]
    processes = [start(host, rank, hosts[0], tmp_path, logs[rank]) for rank, host in enumerate(hosts)]
    try:
        deadline = time.monotonic() + 600
        while not list((stage / "checkpoints").glob("step-*")):
            for process, log in zip(processes, logs, strict=True):
                assert process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "no checkpoint in 600 s"
            time.sleep(0.05)
        ip("-n", hosts[1].name, "link", "set", hosts[1].link, "down")
        cut = time.monotonic()
        codes = [process.wait(timeout=LATEST_S) for process in processes]
        assert time.monotonic() - cut < LATEST_S
    finally:
        for process in processes:
            process.kill()
            process.wait()
    told = [log.read_text(errors="replace") for log in logs]
    assert codes == [3, 3], told
    for rank, words in enumerate(told):
        assert f"rank {rank}" in words, words[-2000:]
        assert "run again to resume" in words, words[-2000:]
    reached = max(int(path.name.removeprefix("step-")) for path in (stage / "checkpoints").glob("step-*"))
    assert 5 <= reached < STEPS
    alone = [sys.executable, "-m", MODULE, *arguments(tmp_path)]
    subprocess.run(alone, env={**os.environ, "DS_ACCELERATOR": "cpu"}, check=True)
    assert read_manifest(stage).stats["steps"] == STEPS
    numbers = [json.loads(line)["step"] for line in (stage / "metrics.jsonl").read_text().splitlines()]
    assert numbers == list(range(1, STEPS + 1))
