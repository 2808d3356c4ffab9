"""`python -m flows.pipeline`: the chain of `owl3 demo` (or any recipe) as one flow; leaves the same digests."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from prefect import flow

from flows.steps import DEMO, WORKSPACE, publish_outcomes, publish_report, run_locally, take_step
from owl3.demo.world import served
from owl3.errors import exit_code_of
from owl3.pipeline import Place, digests, evaluating, steps_after_training, steps_before_training, training_steps
from owl3.recipe import load_recipe
from owl3.remote import opened
from owl3.report.build import build_report


@flow(name="pipeline", flow_run_name="pipeline {recipe.stem}")
def pipeline(recipe: Path = DEMO, workspace: Path = WORKSPACE) -> dict[str, str]:
    """Run a recipe's whole chain; returns the digest of every artifact in the workspace, by its folder.

    Args:
        recipe: One YAML file.
        workspace: Folder that holds all artifacts.
    """
    loaded = load_recipe(recipe)
    with served(loaded, workspace) as resolve:
        place = Place.at(workspace, resolve)
        outcomes = [take_step(step, loaded, place) for step in steps_before_training(loaded)]
        with evaluating(loaded, place):
            outcomes += [take_step(step, loaded, place) for step in training_steps(loaded)]
        outcomes += [take_step(step, loaded, place) for step in steps_after_training(loaded)]
    publish_outcomes(outcomes, key="chain")
    publish_report(build_report(workspace, place.datacards, workspace / "report"), key="report")
    return digests(workspace)


def main() -> None:
    """Run the flow from a command line."""
    parser = argparse.ArgumentParser(prog="python -m flows.pipeline", description=__doc__)
    parser.add_argument("--recipe", type=Path, default=DEMO)
    parser.add_argument("--workspace", "-w", type=Path, default=WORKSPACE)
    options = parser.parse_args()
    with opened(options.workspace) as workspace:
        run_locally(pipeline, recipe=options.recipe, workspace=workspace)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
