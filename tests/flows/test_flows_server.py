"""The server, its schedules and the deployments work as installed: the pins of fastapi and sqlalchemy hold."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect_world import ask

from owl3 import events, lifeline

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = ROOT / "infra" / "prefect.yaml"
pytestmark = [pytest.mark.processes, pytest.mark.xdist_group("prefect")]  # one worker, so one server


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


def test_everything_in_prefect_yaml_deploys(
    prefect_environment: dict[str, str], prefect_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    _schedules_make_runs(wanted)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", prefect_environment["PREFECT_API_AUTH_STRING"])
    _automations_follow_the_deployments(prefect_environment)


def _schedules_make_runs(wanted: list[dict[str, Any]]) -> None:
    """The server has made the next runs of each deployment with a schedule, at the hour that stands in the file."""
    deadline = time.monotonic() + 120
    for entry in wanted:
        for schedule in entry.get("schedules", []):
            while not (runs := [run for run in _runs_of(entry["name"]) if run["auto_scheduled"]]):
                assert time.monotonic() < deadline, f"no run of {entry['name']} was scheduled"
                time.sleep(0.5)
            minute, hour, *_ = schedule["cron"].split()
            assert {run["expected_start_time"][11:16] for run in runs} == {f"{hour:0>2}:{minute:0>2}"}
            assert all(run["work_pool_name"] == entry["work_pool"]["name"] for run in runs)


def _automations_follow_the_deployments(environment: dict[str, str]) -> None:
    """Here, where everything is deployed: what lacks its block is left out, the rest is made and works."""
    run = {"env": environment, "cwd": ROOT, "check": True, "capture_output": True, "text": True}
    told = subprocess.run([sys.executable, "-m", "flows.automations"], **run).stdout
    assert "owl3 evaluate every checkpoint: made" in told
    assert "owl3 a run stalls: left out: no block custom-webhook/owl3-alerts" in told
    api = environment["PREFECT_API_URL"]
    labels = {"owl3.recipe": "/w/runs/demo/recipe.json", "owl3.workspace": "/w"}
    event = events.build("owl3.checkpoint.saved", "owl3.run.demo.sft", labels, {"step": 3})
    assert events.post(api, event)
    deadline = time.monotonic() + 120
    while not (started := _runs_of("evaluate")):
        assert time.monotonic() < deadline, "no evaluation was started by the checkpoint's event"
        time.sleep(0.5)
    assert started[0]["parameters"] == {"recipe": "/w/runs/demo/recipe.json", "workspace": "/w"}


def _runs_of(deployment: str) -> list[dict[str, Any]]:
    from prefect.client.schemas.filters import DeploymentFilter

    named = DeploymentFilter.model_validate({"name": {"any_": [deployment]}})
    return [run.model_dump(mode="json") for run in ask("read_flow_runs", deployment_filter=named)]
