"""`owl3 estimate`: what a recipe would cost on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from owl3.cli.common import DEFAULT_WORKSPACE, Json, Overrides, Recipe, Workspace, emit, table
from owl3.errors import ConfigError

if TYPE_CHECKING:
    from owl3.estimate.steps import Cost, Curation, Estimate


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("estimate")(estimate)


def estimate(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    cluster: Annotated[
        Path | None,
        typer.Option(
            help="A cluster file: machines, rates, failures, prices; without it infra/clusters/8xH100.yaml.",
        ),
    ] = None,
    urls: Annotated[
        list[str] | None, typer.Option(help="Numbers of URLs to curate (400M, 5B); what the recipe draws is added.")
    ] = None,
    assumptions: Annotated[
        list[str] | None, typer.Option("--assume", help="KEY=VALUE: replace an assumption, as web.answered=0.5.")
    ] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Estimate hours, bytes, requests, GPU-hours and money of every step, and simulate the curation run.

    Example: `owl3 estimate flows/recipes/owl3-7b.yaml --cluster infra/clusters/8xH100.yaml --urls 400M --urls 5B`

    Every number that goes in is printed with its source. Plans that lie in the workspace replace assumptions.
    """
    from owl3.estimate.assumptions import assume
    from owl3.estimate.cluster import CLUSTER, load_cluster
    from owl3.estimate.run import estimate as run
    from owl3.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    counts = {f"{text} URLs": parse_count(text) for text in (urls if urls is not None else ["400M", "5B"])}
    made = run(loaded, load_cluster(cluster or CLUSTER), assume(assumptions or ()), workspace, counts)
    emit(as_json, made, *_tables(made))


def parse_count(text: str) -> float:
    """Read 400M, 5B, 20k or a plain number.

    Raises:
        ConfigError: it is none of these, or not positive.
    """
    factor = {"k": 1e3, "M": 1e6, "B": 1e9}.get(text[-1:], 1.0)
    try:
        count = float(text.rstrip("kMB")) * factor
    except ValueError:
        count = 0.0
    if not 0 < count < float("inf"):
        raise ConfigError(f"--urls {text}: write a number as 250000, 20k, 400M or 5B")
    return count


def _tables(made: Estimate) -> list[Table | str]:
    shown: list[Table | str] = []
    for curation in made.curations:
        title = f"Curating {curation.label} ({_count(curation.urls)} in, {_count(curation.pairs)} pairs out)"
        shown += [_costs(title, list(curation.costs), made.currency), _course(curation)]
    if made.costs:
        shown.append(_costs(f"{made.recipe} on {made.cluster}", list(made.costs), made.currency))
        shown.append(f"Plans weigh {_bytes(made.plan_bytes)}.")
    used = table("What went into it", "number", ">value", "kind", "source")
    for name, figure in made.used.items():
        used.add_row(name, f"{figure.value:,.6g}", figure.kind, figure.source)
    return [*shown, used]


def _costs(title: str, costs: list[Cost], currency: str) -> Table:
    shown = table(
        title,
        *("step", ">hours", "limited by", ">machine h", ">GPU h", ">from the web", ">stored", ">requests"),
        f">{currency}",
    )
    for cost in costs:
        shown.add_row(
            cost.step,
            _amount(cost.hours, 1),
            cost.limited_by,
            _amount(cost.machine_hours),
            _amount(cost.gpu_hours),
            _bytes(cost.read_bytes),
            _bytes(cost.stored_bytes),
            _count(cost.requests),
            _amount(cost.money),
        )
    gpu_hours, hours, money = (sum(getattr(cost, key) for cost in costs) for key in ("gpu_hours", "hours", "money"))
    stored = _bytes(sum(cost.stored_bytes for cost in costs))
    shown.add_row("all", _amount(hours, 1), "", "", _amount(gpu_hours), "", stored, "", _amount(money), style="bold")
    return shown


def _course(curation: Curation) -> str:
    course = curation.course
    return (
        f"Simulated, {curation.shards:,} shards in {curation.partitions} flow runs: {course.hours:,.1f} h "
        f"({course.ideal_hours:,.1f} h without failures or stragglers); 95 % of shards after "
        f"{course.hours_to_95:,.1f} h, then {course.tail_hours:.2f} h of tail (last 1 %: {course.tail_1_hours:.2f} h); "
        f"{course.lost_machines:,} machines lost, {course.failed_shards:,} shards failed once, "
        f"{course.redone_share:.2%} done twice. The most frequent host alone takes {curation.politeness_hours:,.1f} h. "
        f"Ledger {_bytes(curation.ledger_bytes)}; Prefect's database grows by {_bytes(curation.prefect_bytes)} "
        f"({_bytes(curation.prefect_bytes_ungrouped)} with a task run per shard).\n"
    )


def _amount(value: float, digits: int = 0) -> str:
    """A little is not nothing: what rounding would make 0 is told as less than the last digit."""
    least = 10.0**-digits
    return f"<{least:g}" if 0 < value < least / 2 else f"{value:,.{digits}f}" if value else "0"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.2f} PB"


def _count(number: float) -> str:
    for unit in ("", "k", "M"):
        if number < 1000:
            return f"{number:.3g}{unit}"
        number /= 1000
    return f"{number:,.3g}B"
