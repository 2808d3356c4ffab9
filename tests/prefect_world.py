"""One Prefect server for all flow tests: a real one, as `prefect server start` gives it, with its scheduler running.

And workers of it, as `prefect worker start` gives them. Conftests of the folders that need them import the fixtures.
"""

import asyncio
import os
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from owl3 import lifeline

ROOT = Path(__file__).parents[1]
START_TIMEOUT_S = 180.0
QUICK = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_RUNNER_POLL_FREQUENCY": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_LOGGING_LEVEL": "WARNING",
    "PREFECT_CLI_PROMPT": "false",
    "PREFECT_SERVER_API_AUTH_STRING": "owl3:planted-password",
    "PREFECT_API_AUTH_STRING": "owl3:planted-password",
}
"""A server with a login, as `infra/docker` starts it."""


@pytest.fixture(scope="session")
def prefect_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Variables that lead to the server; it listens on 127.0.0.1 and keeps its database in a folder of its own."""
    home = tmp_path_factory.mktemp("prefect")
    port = free_port()
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


def free_port() -> int:
    """A port that nobody listens on, and that no system gives out by itself while a server takes its time to start."""
    while True:
        port = random.SystemRandom().randrange(15_000, 30_000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


@pytest.fixture
def prefect_server(prefect_environment: dict[str, str]) -> Iterator[str]:
    """Use the server in this process; yields its API's address."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_HOME, temporary_settings

    api, home = prefect_environment["PREFECT_API_URL"], Path(prefect_environment["PREFECT_HOME"])
    login = prefect_environment["PREFECT_API_AUTH_STRING"]
    with temporary_settings({PREFECT_API_URL: api, PREFECT_HOME: home, PREFECT_API_AUTH_STRING: login}):
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


@contextmanager
def worker(pool: str, environment: dict[str, str], log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A worker of a pool of processes, once the pool is there; it makes the pool where it is not. One run at a time."""
    options = ["--pool", pool, "--type", "process", "--limit", "1"]
    command = lifeline.wrap([sys.executable, "-m", "prefect", "worker", "start", *options])
    with log.open("wb") as output:
        started = subprocess.Popen(
            command, env=environment, cwd=ROOT, stdout=output, stderr=output, start_new_session=True
        )
        try:
            wait_until(lambda: pool in [found.name for found in ask("read_work_pools")], started, START_TIMEOUT_S)
            yield started
        finally:
            _kill_tree(started)


def wait_until(ready: Callable[[], bool], alive: "subprocess.Popen[bytes]", within_s: float) -> None:
    """Wait for something that a living process does."""
    deadline = time.monotonic() + within_s
    while not ready():
        assert alive.poll() is None, "the worker ended"
        assert time.monotonic() < deadline, f"nothing in {within_s:.0f} s"
        time.sleep(0.2)


def ask(method: str, *arguments: Any, **named: Any) -> Any:
    """Call one method of Prefect's client, on the server of this process's settings."""
    from prefect import get_client

    async def call() -> Any:
        async with get_client() as client:
            return await getattr(client, method)(*arguments, **named)

    return asyncio.run(call())


def deploy(flow: str, pool: str) -> None:
    """Make the deployment FLOW/to-cancel of a flow of `flows/stages.py`."""
    from prefect import flow as prefect_flow

    source = prefect_flow.from_source(source=str(ROOT), entrypoint=f"flows/stages.py:{flow}")
    source.deploy(name="to-cancel", work_pool_name=pool, print_next_steps=False, ignore_warnings=True)  # type: ignore[attr-defined]


def start(flow: str, parameters: dict[str, Any]) -> Any:
    """Start a run of it and return its id."""
    from prefect.deployments import run_deployment

    return run_deployment(f"{flow}/to-cancel", parameters=parameters, timeout=0).id  # type: ignore[union-attr]


def cancel(run: Any) -> None:
    """As the button of the UI does."""
    from prefect.states import Cancelling

    ask("set_flow_run_state", run, Cancelling())


def state(run: Any) -> Any:
    """The state of a run."""
    return ask("read_flow_run", run).state


def command_line(process: psutil.Process) -> str:
    """What a process runs; nothing when it has ended meanwhile."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def started_by(process: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """All processes of flow runs: what is below the worker, which is below its lifeline."""
    [prefect] = psutil.Process(process.pid).children()
    return prefect.children(recursive=True)
