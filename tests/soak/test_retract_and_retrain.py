"""A retraction carried out on the demo's corpus: real weights, trained again from the last clean checkpoint."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from demo.tiny import write_tiny_recipe

from owl3.cards import purge
from owl3.cards.subjects import understand
from owl3.cards.trace import trace
from owl3.demo.run import run
from owl3.planfile import Plan
from owl3.recipe import load_recipe
from owl3.storage import sha256_of

SAVE_STEPS = 2
"""Of the tiny recipe: a picture first seen at this step or later leaves one clean checkpoint."""


def owl3(workspace: Path, *arguments: str) -> dict[str, Any]:
    """Run a command as a person would, and return what it prints as JSON."""
    command = [sys.executable, "-m", "owl3", *arguments, "--workspace", str(workspace), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def url_first_seen_late(workspace: Path) -> str:
    """A URL that the first stage sees, but not before its first checkpoint."""
    plan = Plan.open(workspace / "plans" / "demo" / "pretrain")
    for step in range(SAVE_STEPS, plan.num_steps):
        for row in plan.sample_rows(workspace, plan.positions(step).tolist(), ["parents"]):
            found = trace(workspace, understand(row["parents"][0]))
            first = {hit.plan: hit.first for hit in found.plans}["demo/pretrain"]
            if first >= SAVE_STEPS:
                return str(found.urls[0]["url"])
    raise AssertionError("every picture is seen before the first checkpoint")


def weights(workspace: Path, run_name: str, step: int) -> str:
    folder = workspace / "runs" / run_name / "pretrain" / "checkpoints" / f"step-{step:06d}"
    return "".join(sha256_of(path) for path in sorted(folder.rglob("*.safetensors")))


@pytest.mark.processes
def test_a_retracted_url_is_trained_out_of_the_demo(tmp_path: Path) -> None:
    recipe, workspace = write_tiny_recipe(tmp_path / "tiny.yaml"), tmp_path / "workspace"
    run(load_recipe(recipe), workspace)
    url = url_first_seen_late(workspace)
    before = trace(workspace, understand(url), workspace / "datacards")
    assert {hit.checkpoint.run for hit in before.checkpoints} == {"demo/pretrain", "demo/multi_image", "demo/sft"}
    clean = weights(workspace, "demo", SAVE_STEPS)
    assert "demo/pretrain/step-000002" not in {hit.checkpoint.label for hit in before.checkpoints}

    done = owl3(workspace, "retract", "--url", url, "--reason", "asked", "--yes", "--purge", "--rerun", "demo=demo-2")
    assert next((stage["stage"], stage["resume_from"]) for stage in done["rerun"]) == ("pretrain", SAVE_STEPS)
    assert not purge.find_bytes(workspace, set(done["ids"]))
    owl3(workspace, "train", str(recipe), "name=demo-2")
    owl3(workspace, "retract", "--remove-run", "demo", "--reason", "replaced by demo-2", "--yes")

    after = trace(workspace, understand(url))
    assert not after.found
    assert after.tombstoned == len(done["ids"])
    assert weights(workspace, "demo-2", SAVE_STEPS) == clean  # taken over as it was
    metrics = (workspace / "runs" / "demo-2" / "pretrain" / "metrics.jsonl").read_text().splitlines()
    assert min(json.loads(line)["step"] for line in metrics) == SAVE_STEPS + 1  # the clean part was not trained again
    for stage in ("pretrain", "multi_image", "sft"):
        assert (workspace / "runs" / "demo-2" / stage / "model" / "config.json").is_file()
