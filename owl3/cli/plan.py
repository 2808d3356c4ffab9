"""`owl3 plan`: fix the order of a stage's samples, and say what it will cost."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, Overrides, Recipe, TerminalProgress, Workspace, emit, table
from owl3.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("plan")(plan)


def plan(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    stage: Annotated[
        str | None,
        typer.Option(
            "--stage", "-s", help="One stage; without it all of the recipe.", autocompletion=complete.named_in("stages")
        ),
    ] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    plot: Annotated[bool, typer.Option(help="Draw plans/RUN/STAGE.png.")] = True,
    export_energon: Annotated[
        Path | None,
        typer.Option(help="Also write side files there that let Megatron-Energon load these shards."),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fix which sample is seen at which step, before any accelerator is asked for.

    Example: `owl3 plan flows/recipes/demo.yaml --stage multi_image`

    With --dry-run nothing is written: it says what each dataset of the mixture must give, and what is missing.
    """
    from owl3.data import energon
    from owl3.data.balance import rank_balance
    from owl3.data.plan import make_plan
    from owl3.data.plot import plot_plan
    from owl3.planfile import Plan
    from owl3.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    stages = [loaded.stage(stage)] if stage else list(loaded.stages)
    if not stages:
        raise ConfigError(f"{recipe}: has no stages, so there is nothing to plan")
    if dry_run:
        _show_needs({entry.name: entry.data for entry in stages}, workspace, as_json)
        return
    shown: list[Any] = []
    data: dict[str, Any] = {}
    for entry in stages:
        make_plan(entry.data, workspace, run_name=loaded.name, stage=entry.name, progress=TerminalProgress())
        made = Plan.open(workspace / "plans" / loaded.name / entry.name)
        picture = made.folder.with_suffix(".png")
        if plot:
            plot_plan(made, picture)
        if export_energon is not None:
            energon.export_energon(made, workspace, export_energon / entry.name)
        balance = rank_balance(made)
        data[entry.name] = {
            "digest": made.digest,
            "folder": str(made.folder),
            "counts": made.manifest.counts,
            "plot": str(picture) if plot else None,
            **made.manifest.stats,
            "figures": made.header.figures,
            "rank_balance": [asdict(at) for at in balance],
        }
        shown += _describe(made, balance, picture if plot else None)
    emit(as_json, data, *shown)


def _describe(made: Any, balance: list[Any], picture: Path | None) -> list[Any]:
    """Tables and lines about one plan."""
    figures = made.header.figures
    datasets = table(
        f"Plan {made.manifest.name}: {made.num_steps:,} steps of {made.global_batch_size:,} samples",
        *("dataset", ">asked %", ">given %", ">samples", ">of", ">epochs", ">text tokens", ">tokens %"),
    )
    for entry in figures["datasets"]:
        datasets.add_row(
            entry["name"],
            f"{entry['asked_percent']:.2f}",
            f"{entry['given_percent']:.2f}",
            f"{entry['draws']:,}",
            f"{entry['usable']:,}",
            f"{entry['epochs']:.2f}",
            f"{entry['tokens']:,}",
            f"{entry['token_percent']:.2f}",
        )
    spreads = table("Per step", "", ">min", ">median", ">max")
    for key in ("rows", "tokens", "images", "tiles"):
        spread = figures[f"{key}_per_step"]
        spreads.add_row(key, *(f"{spread[part]:,}" for part in ("min", "median", "max")))
    worst = figures["worst_step"]
    dropped = ", ".join(f"{reason} {count:,}" for reason, count in made.manifest.counts.dropped.items()) or "none"
    lines = [
        f"rows are {figures['packing_efficiency']:.1%} full (padding unpacked batches would reach "
        f"{figures['padding_efficiency']:.1%}); longest row {figures['longest_row_tokens']:,} tokens, "
        f"fullest {figures['fullest_row_tiles']:,} tiles",
        f"worst step: {worst['step']:,} with {worst['tiles']:,} tiles and {worst['tokens']:,} tokens in "
        f"{worst['rows']:,} rows (owl3 inspect {made.folder} --step {worst['step']})",
        f"image tokens of a step's ranks differ by at most 10 % in {_balanced(balance)}",
        *_idle(balance),
        f"not planned: {dropped}",
        f"digest {made.digest[:16]}  {made.folder}" + (f"  plot {picture}" if picture else ""),
        "",
    ]
    return [datasets, spreads, *lines]


def _balanced(balance: list[Any]) -> str:
    """`100% of steps with 2 ranks (worst 3% at step 7), …`."""
    parts = [
        f"{at.within:.0%} of steps with {at.ranks} ranks (worst {at.worst:.0%} at step {at.worst_step:,})"
        for at in balance
    ]
    looked = f", of {balance[0].steps:,} steps looked at" if balance else ""
    return ", ".join(parts) + looked


def _idle(balance: list[Any]) -> list[str]:
    """A line on ranks that have no row while others do, where that is worth a word."""
    from owl3.data.balance import IDLE_TOLERANCE

    parts = [f"{at.idle:.1%} with {at.ranks}" for at in balance if at.idle >= IDLE_TOLERANCE]
    if not parts:
        return []
    return [f"ranks are idle for want of rows, as part of a step: {', '.join(parts)} (data.rows_multiple mends that)"]


def _show_needs(configs: dict[str, Any], workspace: Path, as_json: bool) -> None:
    from owl3.data.needs import mixture_needs

    needs = {name: mixture_needs(config, workspace) for name, config in configs.items()}
    missing = sum(not need.is_met for entries in needs.values() for need in entries)
    shown: list[Any] = [_needs_table(name, entries) for name, entries in needs.items()]
    emit(
        as_json,
        {
            name: [{field: getattr(need, field) for field in need.__slots__} | {"met": need.is_met} for need in entries]
            for name, entries in needs.items()
        },
        *shown,
        f"{missing} of {sum(map(len, needs.values()))} are missing or too small" if missing else "everything is there",
    )


def _needs_table(stage: str, needs: list[Any]) -> Table:
    shown = table(f"Stage {stage} needs", "dataset", ">percent", ">draws", ">samples at least", ">has", "", "get it")
    for need in needs:
        shown.add_row(
            need.name,
            "?" if need.percent is None else f"{need.percent:.2f}",
            *("?" if number is None else f"{number:,}" for number in (need.draws, need.min_samples)),
            "-" if need.kept is None else f"{need.kept:,}",
            "" if need.is_met else "MISSING" if need.kept is None else "TOO FEW",
            need.needs,
        )
    return shown
