"""`owl3 demo` and `owl3 run`: a whole chain in one command."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, Overrides, TerminalProgress, Workspace, emit, table, where
from owl3.cli.common import Recipe as RecipeFile

if TYPE_CHECKING:
    from owl3.demo.run import Account

Processes = Annotated[int, typer.Option(min=1, help="Training processes on this machine.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("demo")(demo)
    app.command("run")(run_recipe)


def demo(
    recipe: Annotated[Path | None, typer.Option(help="Another recipe with a `corpus` section.")] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Run the whole chain on a small corpus that it makes and serves itself: no network, no GPU.

    Example: `owl3 demo --workspace /tmp/demo`

    URLs are fetched, checked, built, planned, trained on in three stages, evaluated, described and audited, by the code
    of a real run. Killed at any moment, it goes on where it was; a second run finds everything done.
    """
    from owl3.recipe import RECIPES

    _run(recipe or RECIPES / "demo.yaml", (), workspace, as_json=as_json, dry_run=dry_run, processes=1)


def run_recipe(  # noqa: PLR0917 - options of a command line
    recipe: RecipeFile,
    overrides: Overrides = None,
    processes: Processes = 1,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Run a recipe's whole chain: sources, shards, samples, plans, stages, evaluations, card, audit, report.

    Example: `owl3 run flows/recipes/local-photos.yaml corpus.folders.coco=/data/coco`
    """
    _run(recipe, overrides or (), workspace, as_json=as_json, dry_run=dry_run, processes=processes)


def _run(
    path: Path, overrides: Sequence[str], workspace: Path, *, as_json: bool, dry_run: bool, processes: int
) -> None:
    from owl3.demo.run import run
    from owl3.pipeline import all_steps
    from owl3.recipe import load_recipe

    recipe = load_recipe(path, overrides)
    if dry_run:
        steps = all_steps(recipe)
        names = [f"{step.kind} {step.name}" for step in steps]
        emit(as_json, {"steps": names}, f"{recipe.name} would, in {workspace}:", *(f"  {name}" for name in names))
        return
    typer.echo(f"{recipe.name}: {len(all_steps(recipe))} steps in {workspace}; what is done stays", err=True)
    account = run(recipe, workspace, TerminalProgress(), processes)
    emit(
        as_json,
        account.to_dict(),
        _steps_table(account),
        *_drops(account),
        _scores_table(account),
        *_last_words(account, workspace),
    )


def _steps_table(account: Account) -> Table:
    made = table("What happened", "step", ">seen", ">kept", ">dropped", ">seconds", "digest")
    for outcome in account.steps:
        counts = outcome.counts
        seconds = "done before" if outcome.was_done else f"{outcome.seconds:.1f}"
        dropped = str(counts.seen - counts.kept) if counts.dropped else ""
        made.add_row(outcome.step, str(counts.seen), str(counts.kept), dropped, seconds, outcome.digest[:12])
    return made


def _drops(account: Account) -> list[str]:
    """One line per curated corpus: how many rows were dropped for which reason."""
    curated = [outcome for outcome in account.steps if outcome.step.startswith("curate ") and outcome.counts.dropped]
    return [
        f"Dropped by {outcome.step}: "
        + ", ".join(f"{count} {reason}" for reason, count in outcome.counts.dropped.items())
        for outcome in curated
    ]


def _scores_table(account: Account) -> Table:
    made = table("What the model can answer", "task", ">questions", "metric", ">score", ">blind", ">random")
    for task, score in account.scores.items():
        floors = ("" if floor is None else f"{floor:.3f}" for floor in (score.blind, score.random))
        made.add_row(task, str(score.questions), score.metric, f"{score.score:.3f}", *floors)
    return made


def _last_words(account: Account, workspace: Path) -> list[str]:
    lines = []
    if account.traced is not None:
        found = account.traced
        lines.append(
            f"Traced {found.subject.text}: in {found.built_total} built samples, "
            f"seen by {len(found.checkpoints)} checkpoints ({len(found.evaluations)} evaluations)."
        )
        lines.append(f"Ask for any other: owl3 trace URL --html trace.html{where(workspace)}")
    return [*lines, f"Look at {account.report} ({account.seconds:.0f} s; everything is in {workspace})"]
