"""`owl3 ablate`: one recipe trained in several ways, compared in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, Overrides, Recipe, TerminalProgress, Workspace, emit, table

if TYPE_CHECKING:
    from owl3.demo.ablation import Ablation


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("ablate")(ablate)


def ablate(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    only: Annotated[list[str] | None, typer.Option(help="A variant by its name (repeat it); without it all.")] = None,
    processes: Annotated[int, typer.Option(min=1, help="Training processes on this machine.")] = 1,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train a recipe once per variant and seed of its `ablation` section, and compare accuracy, time and memory.

    Example: `owl3 ablate flows/recipes/ablation.yaml --workspace ablation`

    All see the same samples in the same order for the same steps. Stopped at any moment, the same command goes on; the
    table holds what is complete.
    """
    from owl3.demo.ablation import ablate as run
    from owl3.demo.ablation import as_json as plain_data
    from owl3.demo.ablation import variants_of
    from owl3.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if dry_run:
        names = [variant.recipe.name for variant in variants_of(loaded) if not only or variant.name in only]
        emit(as_json, {"would_train": names}, f"{loaded.name} would train, in {workspace}:", *(f"  {n}" for n in names))
        return
    made = run(loaded, workspace, TerminalProgress(), processes, only or ())
    emit(as_json, plain_data(made), _comparison(made), f"Written to {made.folder / 'table.md'}")


def _comparison(made: Ablation) -> Any:
    from owl3.demo.ablation import cells, headings

    first, *rest = headings(made.lines)
    shown = table("Ablation: mean ± standard deviation over seeds", first, *(f">{name}" for name in rest))
    for line in made.lines:
        shown.add_row(*cells(line))
    return shown
