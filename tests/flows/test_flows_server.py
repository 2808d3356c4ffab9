"""The server, its schedules and the deployments work as installed: the pins of fastapi and sqlalchemy hold."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from owl3 import lifeline

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "infra" / "prefect.yaml"
pytestmark = pytest.mark.processes


def test_schedules_really_fire(
    prefect_environment: dict[str, str], tmp_path: Path, kill_tree: Callable[["subprocess.Popen[bytes]"], None]
) -> None:
    """With sqlalchemy 2.1, Prefect 3.8 starts and runs flows, but no schedule ever fires, and no error says so."""
    script = Path(__file__).with_name("ticking.py")
    (ticks := tmp_path / "ticks").mkdir()
    # Under a lifeline: the runner and the flow runs it started end with this test, however that ends.
    command = lifeline.wrap([sys.executable, str(script), str(ticks)])
    with (tmp_path / "runner.log").open("wb") as log:
        runner = subprocess.Popen(command, env=prefect_environment, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 200
            while not any(ticks.iterdir()):
                assert runner.poll() is None, "the runner ended"
                assert time.monotonic() < deadline, "no scheduled run in 200 s"
                time.sleep(0.2)
        finally:
            kill_tree(runner)


def test_an_embedded_server_starts(tmp_path: Path) -> None:
    """With img2dataset's `dataclasses` backport installed, it dies at once."""
    script = (
        "from prefect import flow\nfrom flows.steps import run_locally\n"
        "@flow\ndef one() -> int:\n    return 1\n"
        "print('returned', run_locally(one))\n"
    )
    environment = {**os.environ, "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    environment.pop("PREFECT_API_URL", None)
    done = subprocess.run([sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert "returned 1" in done.stdout, done.stderr[-2000:]


def test_everything_in_prefect_yaml_deploys(prefect_environment: dict[str, str]) -> None:
    run = {"env": prefect_environment, "cwd": ROOT, "check": True, "capture_output": True, "text": True}
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    wanted = yaml.safe_load(DEPLOYMENTS.read_text(encoding="utf-8"))["deployments"]
    for pool in sorted({entry["work_pool"]["name"] for entry in wanted}):
        subprocess.run([*prefect, "work-pool", "create", pool, "--type", "process"], **run)
    subprocess.run([*prefect, "deploy", "--prefect-file", str(DEPLOYMENTS), "--all"], **run)
    listed = subprocess.run([*prefect, "deployment", "ls", "-o", "json"], **run)
    found = {entry["name"]: entry for entry in json.loads(listed.stdout)}
    assert {entry["name"] for entry in wanted} <= set(found)
    for entry in wanted:
        deployed = found[entry["name"]]
        assert deployed["entrypoint"] == entry["entrypoint"]
        assert len(deployed["schedules"]) == len(entry.get("schedules", []))
        assert "workspace" in deployed["parameter_openapi_schema"]["properties"], "the UI shows a form for it"
