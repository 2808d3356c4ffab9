"""The tasks of a flow on a real Ray cluster of this machine: the same digests as in threads of one process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from demo.tiny import write_tiny_recipe
from prefect_world import ROOT

from flows.runners import VARIABLE
from owl3.pipeline import digests

RUN = """
import json, os, sys
from pathlib import Path
from flows.stages import curate
recipe, workspace = map(Path, sys.argv[1:])
curate(recipe=recipe, workspace=workspace, only=["clips"])
print(json.dumps(type(curate.task_runner).__name__))
"""


@pytest.mark.processes
def test_a_flow_on_ray_leaves_the_digests_of_threads(prefect_environment: dict[str, str], tmp_path: Path) -> None:
    if not importlib.util.find_spec("ray") or not importlib.util.find_spec("prefect_ray"):
        pytest.skip("needs owl3[ray]: ray and prefect-ray")
    recipe = write_tiny_recipe(tmp_path / "tiny.yaml")
    found = {}
    for runner in ("threads", "ray"):
        workspace = tmp_path / runner
        # Ray's workers import what the flow's tasks are made of, from the same folders.
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        environment = {**prefect_environment, VARIABLE: runner, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, "-c", RUN, str(recipe), str(workspace)]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True, timeout=600)
        found[json.loads(done.stdout.splitlines()[-1])] = digests(workspace)
    assert set(found) == {"ThreadPoolTaskRunner", "RayTaskRunner"}
    assert found["RayTaskRunner"] == found["ThreadPoolTaskRunner"]
    assert found["RayTaskRunner"]
