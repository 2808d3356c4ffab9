"""`owl3 estimate`: count the recipe's shapes in a process of its own, then add its steps up."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from owl3 import lifeline
from owl3.config import plain
from owl3.errors import ConfigError
from owl3.estimate.assumptions import Assumptions
from owl3.estimate.cluster import Cluster
from owl3.estimate.steps import Estimate, Estimator
from owl3.planfile import Plan
from owl3.recipe import Recipe
from owl3.train.stages import plan_folder


def estimate(
    recipe: Recipe, cluster: Cluster, assumed: Assumptions, workspace: Path, urls: Mapping[str, float]
) -> Estimate:
    """Estimate every step of a recipe.

    Args:
        urls: Numbers of URLs to curate, each with a label; what the recipe itself draws is added.

    Raises:
        ConfigError: the model's shapes are not known, or a stage is given in epochs and not planned yet.
    """
    for stage in recipe.stages:
        if stage.data.steps is None:
            Plan.open(plan_folder(workspace, recipe.name, stage.name))
    shapes = count_shapes(recipe, cluster.accelerators.count) if recipe.stages else {}
    return Estimator(recipe, cluster, assumed, shapes, workspace).estimate(dict(urls))


def count_shapes(recipe: Recipe, ranks: int) -> dict[str, dict[str, float]]:
    """Per stage: operations per token and picture, parameters, bytes of a checkpoint and on each rank.

    Raises:
        ConfigError: what `owl3.estimate.shapes` says.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.json"
        path.write_text(json.dumps(plain(recipe)), encoding="utf-8")
        command = [sys.executable, "-m", "owl3.estimate.shapes", str(path), str(ranks)]
        done = subprocess.run(lifeline.wrap(command), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ConfigError(f"recipe {recipe.name}: {lines[-1].removeprefix('owl3: ')}")
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found
