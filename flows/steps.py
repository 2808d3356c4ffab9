"""The one task of all flows: a step of a recipe's chain, with retries where trying again can help.

A step's outcome is a small record; the work itself lies on disk, where the next step finds it. So Prefect's database
may be wiped at any time: the same flow run again finds what is done and goes on.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefect import Flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.settings import (
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)
from prefect.tasks import Task

from owl3 import events
from owl3.curate.yields import judge_yield
from owl3.errors import CheckFailed, Interrupted, Stopped
from owl3.pipeline import Outcome, Place, Step
from owl3.recipe import RECIPES, Recipe
from owl3.secrecy import silenced

DEMO = RECIPES / "demo.yaml"
WORKSPACE = Path("workspace")
RETRY_AFTER_S = [10.0, 60.0, 300.0]


async def is_transient(_task: Task[Any, Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again can help: a step that was stopped part-way, or a disk or network that failed."""
    error = await state.aresult(raise_on_failure=False)
    return isinstance(error, Interrupted | OSError) and not isinstance(error, Stopped)


@task(
    name="step",
    task_run_name="{step.kind} {step.name}",
    retries=len(RETRY_AFTER_S),
    retry_delay_seconds=RETRY_AFTER_S,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def take(step: Step, recipe: Recipe, place: Place) -> Outcome:
    """Take a step; what it makes lies on disk, so there is nothing for Prefect to keep."""
    with silenced():
        try:
            return step.run(recipe, place)
        except CheckFailed as failed:
            events.emit("owl3.check.failed", f"owl3.step.{step.kind}.{step.name}", payload={"message": str(failed)})
            raise


def take_step(step: Step, recipe: Recipe, place: Place) -> Outcome:
    """Take a step as a task, tagged with its kind: `prefect concurrency-limit create train 1` keeps a GPU to one."""
    return take.with_options(tags=[step.kind])(step, recipe, place)


def publish_outcomes(outcomes: Iterable[Outcome], key: str) -> None:
    """Show what came in, what was kept and what was dropped, on the flow run's page."""
    lines = [
        "| step | seen | kept | yield | dropped | seconds | digest |",
        "| --- | ---: | ---: | ---: | --- | ---: | --- |",
    ]
    for outcome in outcomes:
        counts = outcome.counts
        dropped = ", ".join(f"{reason} {count}" for reason, count in counts.dropped.items())
        share = f"{counts.kept / counts.seen:.1%}" if counts.seen else ""
        lines.append(
            f"| {outcome.step} | {counts.seen} | {counts.kept} | {share} | {dropped} | {outcome.seconds:.1f} "
            f"| `{outcome.digest[:12]}` |"
        )
    create_markdown_artifact("\n".join(lines), key=key, description="What each step saw, kept and dropped")


def tell_of_yields(recipe: Recipe, workspace: Path, at_least: float) -> None:
    """Say of each finished set when its yield is under a bound or unlike its history; automations wait for that."""
    for found in (judge_yield(workspace, entry.name, at_least) for entry in recipe.curate):
        if found is not None and found.event is not None:
            events.emit(found.event, f"owl3.set.{found.set}", payload=found.model_dump(mode="json"))


def publish_report(page: Path, key: str) -> None:
    """Link the report from the flow run's page."""
    create_link_artifact(page.resolve().as_uri(), key=key, link_text="report", description="Static pages; open locally")


def run_locally(flow: Flow[..., Any], **parameters: Any) -> Any:
    """Run a flow from a command line: with PREFECT_API_URL's server where that is set, else with one of its own.

    The embedded server migrates its database at its first start, which takes longer than Prefect's default patience.
    """
    settings: dict[Any, Any] = {
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
    }
    with temporary_settings(settings):
        return flow(**parameters)
