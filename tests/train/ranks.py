"""Start real ranks for a test: `python ranks.py SCRIPT-FUNCTION ARGUMENTS`, n times, as a launcher would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(script: Path, arguments: list[str], size: int) -> list["subprocess.Popen[str]"]:
    """Start `size` ranks of `python script arguments…`."""
    port = str(free_port())
    processes = []
    for rank in range(size):
        env = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "LOCAL_RANK": str(rank),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        command = [sys.executable, str(script), *arguments]
        processes.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
    return processes


def run(script: Path, arguments: list[str], size: int, timeout_s: float = 120.0) -> list[tuple[int, str, str]]:
    """Run ranks to their end; return (exit code, stdout, stderr) of each."""
    processes = start(script, arguments, size)
    try:
        outputs = [process.communicate(timeout=timeout_s) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, out, err) for process, (out, err) in zip(processes, outputs, strict=True)]


def last_json(output: str) -> Any:
    """The last line of a rank's output, as JSON."""
    return json.loads(output.strip().splitlines()[-1])
