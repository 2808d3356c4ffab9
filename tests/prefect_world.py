"""One Prefect server for all flow tests: a real one, as `prefect server start` gives it, with its scheduler running."""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from owl3 import lifeline

START_TIMEOUT_S = 180.0
QUICK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
}


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables that lead to the server; it listens on 127.0.0.1 and keeps its database in a folder of its own."""
    home = tmp_path_factory.mktemp("prefect")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    environment = {**os.environ, **QUICK, "PREFECT_HOME": str(home)}
    environment.pop("PREFECT_API_URL", None)
    log = (home / "server.log").open("wb")
    options = ["--host", "127.0.0.1", "--port", str(port), "--no-ui"]
    command = lifeline.wrap([sys.executable, "-m", "prefect", "server", "start", *options])
    server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    api = f"http://127.0.0.1:{port}/api"
    try:
        wait_until_healthy(server, api, home / "server.log")
        yield {**environment, "PREFECT_API_URL": api}
    finally:
        _kill_tree(server)
        log.close()


@pytest.fixture
def prefect_server(prefect_environment: dict[str, str]) -> Iterator[str]:
    """Use the server in this process; yields its API's address."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    api, home = prefect_environment["PREFECT_API_URL"], Path(prefect_environment["PREFECT_HOME"])
    with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home}):
        yield api


def _kill_tree(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started, at once: they hold nothing that a test needs."""
    for child in psutil.Process(process.pid).children(recursive=True):
        child.kill()
    process.kill()
    process.wait()


@pytest.fixture
def kill_tree() -> Callable[["subprocess.Popen[bytes]"], None]:
    """How to end a process with everything it started."""
    return _kill_tree


def wait_until_healthy(server: "subprocess.Popen[bytes]", api: str, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        assert server.poll() is None, f"the server ended: {log.read_text(errors='replace')[-2000:]}"
        try:
            with urllib.request.urlopen(f"{api}/health", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert time.monotonic() < deadline, f"no answer in {START_TIMEOUT_S:.0f} s; see {log}"
        time.sleep(0.2)
