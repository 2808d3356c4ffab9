"""`owl3 inspect`: what did step N hold, and at which steps was this sample seen?"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from owl3.cli.common import DEFAULT_WORKSPACE, Json, Workspace, emit, table, workspace_of
from owl3.errors import ConfigError, InputError

if TYPE_CHECKING:
    from owl3.data.views import SeenSample
    from owl3.planfile import Plan


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("inspect")(inspect)


def inspect(  # noqa: PLR0917 - options of a command line
    artifact: Annotated[
        Path, typer.Argument(help="plans/NAME/STAGE, runs/NAME/STAGE or samples/NAME.", show_default=False)
    ],
    step: Annotated[int | None, typer.Option(help="Of a plan or run: list what this step holds.")] = None,
    sample: Annotated[str | None, typer.Option(help="The steps that hold it; its id, or the beginning.")] = None,
    rank: Annotated[int | None, typer.Option(help="Only what this rank computes …")] = None,
    world: Annotated[int, typer.Option(min=1, help="… of so many.")] = 1,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    key: Annotated[list[str] | None, typer.Option(help="Of samples: show these keys.")] = None,
    random: Annotated[int, typer.Option(min=1, help="Of samples: show so many, evenly chosen.")] = 9,
    sheet: Annotated[Path | None, typer.Option(help="Of samples: also write a contact sheet (.png or .html).")] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Show what a step of a plan or run held, which steps hold a sample, or what some samples look like.

    Example: `owl3 inspect workspace/plans/demo/sft --step 12 --html step-12.html`
    """
    from owl3.data.views import find_plan, render_page, samples_of_step
    from owl3.manifest import MANIFEST_NAME, read_manifest
    from owl3.storage import write_atomic

    workspace = workspace_of(artifact, workspace)
    if (artifact / MANIFEST_NAME).is_file() and read_manifest(artifact).kind == "samples":
        _show_built(artifact, workspace, key or [], random, sheet, as_json)
        return
    plan = find_plan(artifact, workspace)
    if (step is None) == (sample is None):
        raise ConfigError(f"{artifact}: give --step N (0 to {plan.num_steps - 1}) or --sample ID")
    if sample is not None:
        _show_steps(plan, workspace, sample, as_json)
    elif step is not None:
        samples = samples_of_step(plan, workspace, step, rank=rank, world_size=world)
        if html is not None and samples:
            write_atomic(html, render_page(plan, workspace, samples).encode())
        data = {"plan": plan.digest, "step": step, "samples": [seen.to_json() for seen in samples]}
        emit(as_json, data, _samples_table(plan, step, samples), *([f"page: {html}"] if html else []))


def _show_built(  # noqa: PLR0917 - they come from the command line
    folder: Path, workspace: Path, keys: list[str], random: int, sheet: Path | None, as_json: bool
) -> None:
    from owl3.build.inspect import as_text, show_samples

    shown = show_samples(folder, workspace, keys=keys, random=random, sheet=sheet)
    texts = [as_text(entry) + "\n" for entry in shown]
    emit(as_json, [entry.row for entry in shown], *texts, *([f"sheet: {sheet}"] if sheet else []))


def _show_steps(plan: "Plan", workspace: Path, sample: str, as_json: bool) -> None:
    positions = plan.find(workspace, sample)
    if not positions:
        raise InputError(f"{plan.folder}: no dataset of its mixture keeps the sample {sample}; owl3 trace finds ids")
    ids = sorted({row["sample_id"] for row in plan.sample_rows(workspace, positions, ["sample_id"])})
    if len(ids) > 1:
        raise InputError(
            f"{plan.folder}: {len(ids)} samples begin with {sample} ({ids[0]}, {ids[1]}, …); give more digits"
        )
    steps = plan.steps_of(positions)
    names = sorted({plan.header.datasets[plan.dataset_of(position)].name for position in positions})
    where = f"{ids[0]} of {', '.join(names)}"
    line = f"{where} is seen at {len(steps)} of {plan.num_steps} steps: {', '.join(map(str, steps))}"
    emit(as_json, {"sample_id": ids[0], "datasets": names, "steps": steps}, line if steps else f"{where}: at no step")


def _samples_table(plan: "Plan", step: int, samples: Sequence["SeenSample"]) -> Table:
    shown = table(
        f"{plan.manifest.name}, step {step}: {len(samples)} samples, {plan.trained_tokens(step):,} trained tokens",
        *(">row", ">rank", ">slot", "dataset", "id", ">media", "text", "URL"),
    )
    for seen in samples:
        text = " ".join(" ".join(said.text for said in seen.said).split())
        more = f" (+{len(seen.urls) - 1})" if len(seen.urls) > 1 else ""
        shown.add_row(
            *map(str, (seen.row, seen.rank, seen.slot)),
            seen.dataset,
            seen.sample_id[:12],
            str(seen.num_media),
            text if len(text) <= 60 else text[:59] + "…",
            (seen.urls[0] if seen.urls else "") + more,
        )
    return shown
