"""One flow per verb, over the same steps as the pipeline: what a team schedules and triggers apart.

    curate    sources and shards        nightly
    build     tokenizer and samples
    plan      the order of each stage
    train     stages, evaluated at every checkpoint
    evaluate  what is still wanting
    cards     card and report

Each takes a recipe and a workspace, and optionally only some of its entries by name.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated

from prefect import flow
from pydantic import Field, PositiveInt

from flows.partitions import fetch_all, publish_sheets
from flows.runners import chosen_runner
from flows.steps import DEMO, WORKSPACE, publish_outcomes, publish_report, take_step, tell_of_yields
from owl3.backfill import Backfill
from owl3.curate.partitions import MAX_PARTITIONS
from owl3.demo.world import served
from owl3.pipeline import Outcome, Place, choose_steps, drain_evaluations, evaluating
from owl3.recipe import load_recipe
from owl3.report.build import build_report


@flow(name="curate", flow_run_name="curate {recipe.stem}", task_runner=chosen_runner())
def curate(
    recipe: Path = DEMO,
    workspace: Path = WORKSPACE,
    *,
    only: list[str] | None = None,
    snapshot: date | None = None,
    shards: tuple[int, int] | None = None,
    backfill: bool = False,
    task_runs: PositiveInt = MAX_PARTITIONS,
    min_yield: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> list[Outcome]:
    """Fetch, check and write shards, in partitions; rows that were fetched before are not fetched again.

    Args:
        recipe: One YAML file with `sources` and `curate`.
        workspace: Folder that holds all artifacts.
        only: Sets to take; all when empty.
        snapshot: Fetch as of this day, into sets called NAME-DATE.
        shards: Fetch only these (half-open); they are written when the others are there.
        backfill: Also make anew what another recipe or source made (stale by digest).
        task_runs: Most partitions per set, each of which is one task run.
        min_yield: Share of rows that must be kept; with less, or with a yield unlike other days', an event is sent.
    """
    wanted = Backfill(only=only, day=snapshot, shards=shards, renew=backfill, most=task_runs)
    loaded = wanted.of(load_recipe(recipe))
    with served(loaded, workspace, again=backfill) as resolve:
        place = Place.at(workspace, resolve)
        outcomes = [take_step(step, loaded, place) for step in choose_steps(loaded, ("source",), None)]
        fetch_all(wanted, loaded, place)
        outcomes += [take_step(step, loaded, place) for step in wanted.writing(loaded)]
    publish_outcomes(outcomes, key="curate")
    publish_sheets(loaded, workspace)
    tell_of_yields(loaded, workspace, min_yield)
    return outcomes


@flow(name="build", flow_run_name="build {recipe.stem}")
def build(recipe: Path = DEMO, workspace: Path = WORKSPACE, only: list[str] | None = None) -> list[Outcome]:
    """Make the tokenizer and the samples from curated shards."""
    loaded = load_recipe(recipe)
    place = Place.at(workspace, {})
    outcomes = [take_step(step, loaded, place) for step in choose_steps(loaded, ("tokenizer", "build"), only)]
    publish_outcomes(outcomes, key="build")
    return outcomes


@flow(name="plan", flow_run_name="plan {recipe.stem}")
def plan(recipe: Path = DEMO, workspace: Path = WORKSPACE, only: list[str] | None = None) -> list[Outcome]:
    """Fix the order of each stage's samples, before any accelerator is asked for."""
    loaded = load_recipe(recipe)
    place = Place.at(workspace, {})
    outcomes = [take_step(step, loaded, place) for step in choose_steps(loaded, ("plan",), only)]
    publish_outcomes(outcomes, key="plan")
    return outcomes


@flow(name="train", flow_run_name="train {recipe.stem}")
def train(recipe: Path = DEMO, workspace: Path = WORKSPACE, only: list[str] | None = None) -> list[Outcome]:
    """Train stages, each from the export of the one before, and evaluate every checkpoint beside it.

    Args:
        recipe: One YAML file with `stages`.
        workspace: Folder that holds all artifacts.
        only: Stages to train; all when empty.
    """
    loaded = load_recipe(recipe)
    place = Place.at(workspace, {})
    with evaluating(loaded, place, only=only):
        outcomes = [take_step(step, loaded, place) for step in choose_steps(loaded, ("train",), only)]
    publish_outcomes(outcomes, key="train")
    return outcomes


@flow(name="evaluate", flow_run_name="evaluate {recipe.stem}")
def evaluate(recipe: Path = DEMO, workspace: Path = WORKSPACE) -> None:
    """Make every score that a checkpoint of this recipe's run still wants."""
    drain_evaluations(load_recipe(recipe), Place.at(workspace, {}))


@flow(name="cards", flow_run_name="cards {recipe.stem}")
def cards(recipe: Path = DEMO, workspace: Path = WORKSPACE) -> list[Outcome]:
    """Render the datacard and the report."""
    loaded = load_recipe(recipe)
    place = Place.at(workspace, {})
    outcomes = [take_step(step, loaded, place) for step in choose_steps(loaded, ("card",), None)]
    publish_report(build_report(workspace, place.datacards, workspace / "report"), key="report")
    return outcomes
