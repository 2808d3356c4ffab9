"""Everything in infra/prefect.yaml is deployed, and each deployment's flow is started once by a schedule and ends well.

The recipe and the workspace are the tiny demo's, and beside its own schedule each deployment gets one that is due in
some seconds. Nobody else starts anything: the server makes the run, a worker of the deployment's pool takes it.
"""

import subprocess
import sys
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from demo.tiny import write_tiny_recipe
from prefect_world import ROOT, ask, wait_until, worker

GIVEN = {"subject": "photos.owl3.test", "reason": "the owner asked", "what": "domain"}
DUE_IN = timedelta(seconds=3)
WAIT_S = 1200.0


@pytest.mark.processes
def test_a_schedule_starts_every_deployment(
    prefect_environment: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    deployments = deploy(prefect_environment, tmp_path)
    assert len(deployments) == 10
    found = {}
    with ExitStack() as stack:
        pools = sorted({entry["work_pool"]["name"] for entry in deployments})
        workers = {
            pool: stack.enter_context(worker(pool, prefect_environment, tmp_path / f"{pool}.log")) for pool in pools
        }
        for entry in deployments:  # in the file's order: each finds what those before it made
            function = entry["entrypoint"].rpartition(":")[2].replace("_", "-")
            deployed = ask("read_deployment_by_name", f"{function}/{entry['name']}").id
            schedule_soon(deployed)
            process = workers[entry["work_pool"]["name"]]
            wait_until(lambda deployed=deployed: any(ended(deployed)), process, WAIT_S)  # type: ignore[misc]
            [run] = ended(deployed)
            assert run.auto_scheduled, "the server made it, not a person"
            found[entry["name"]] = (run.state.name, run.state.message)
    assert {name: state for name, (state, _) in found.items()} == dict.fromkeys(found, "Completed"), found


def deploy(environment: dict[str, str], folder: Path) -> list[dict[str, Any]]:
    """Deploy the file with other parameters; returns its entries."""
    told = yaml.safe_load((ROOT / "infra" / "prefect.yaml").read_text(encoding="utf-8"))
    recipe, workspace = write_tiny_recipe(folder / "tiny.yaml"), folder / "workspace"
    workspace.mkdir()
    for entry in told["deployments"]:
        given = {"workspace": str(workspace)} | ({"recipe": str(recipe)} if "recipe" in entry["parameters"] else {})
        entry["parameters"] |= given | (GIVEN if entry["name"] == "retract" else {})
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump(told), encoding="utf-8")
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    for pool in sorted({entry["work_pool"]["name"] for entry in told["deployments"]}):
        subprocess.run([*prefect, "work-pool", "create", pool, "--type", "process"], env=environment, check=True)
    subprocess.run([*prefect, "deploy", "--prefect-file", str(path), "--all"], env=environment, cwd=ROOT, check=True)
    entries: list[dict[str, Any]] = told["deployments"]
    return entries


def schedule_soon(deployment: Any) -> None:
    """Let a schedule of this deployment fire in a moment, once."""
    from prefect.client.schemas.schedules import IntervalSchedule

    every = timedelta(days=1)
    soon = IntervalSchedule(interval=every, anchor_date=datetime.now(UTC) + DUE_IN - every)
    ask("create_deployment_schedules", deployment, [(soon, True)], max_scheduled_runs=1)


def ended(deployment: Any) -> list[Any]:
    """The runs of a deployment that are over."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    runs = ask("read_flow_runs", deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment])))
    return [run for run in runs if run.state is not None and run.state.is_final()]
