"""What was in step N: a page per step of a plan, with thumbnails.

Pages are written for the steps that a reader asks for first: the first, the last, some between at even distances, and
those with an incident (a loss that stood out, or was not finite).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owl3.cards import runs
from owl3.planfile import Plan
from owl3.report.collect import show_sample
from owl3.storage import read_json

STEPS_SHOWN = 6
SAMPLES_PER_STEP = 16
SAMPLES_PER_INCIDENT = 128
INCIDENTS_SHOWN = 12
_COLUMNS = ("sample_id", "shard", "json_offset", "json_bytes", "media", "text_tokens", "trained_tokens", "images")


@dataclass(frozen=True)
class StepPage:
    """One step as data for its template."""

    run: str
    step: int
    num_steps: int
    link: str
    trained_tokens: int
    rows: int
    samples: list[dict[str, Any]]
    not_shown: int
    loss: float | None
    incident: str | None  # why the step stands out


def chosen_steps(num_steps: int, extra: Sequence[int] = (), most: int = STEPS_SHOWN) -> list[int]:
    """First, last, evenly between, and the extra ones."""
    if num_steps <= 0:
        return []
    even = {round(index * (num_steps - 1) / max(most - 1, 1)) for index in range(most)}
    return sorted(even | {step for step in extra if 0 <= step < num_steps})


def step_pages(workspace: Path, run: runs.Run, losses: dict[int, float], side_px: int) -> list[StepPage]:
    """Pages of a run's steps; none when its plan's samples were made anew since."""
    folder = workspace / "plans" / run.name
    if not (folder / "manifest.json").is_file():
        return []
    plan = Plan.open(folder)
    plan.check_parents(workspace)
    found = {step: why for step, why in incidents(run.folder).items() if step < plan.num_steps}
    steps = sorted({*chosen_steps(min(run.steps, plan.num_steps)), *found})
    return [_page(workspace, plan, step, losses.get(step + 1), found.get(step), side_px) for step in steps]


def incidents(folder: Path) -> dict[int, str]:
    """The last steps of a run that stood out, and why."""
    paths = sorted(folder.glob("incidents/*.json"), key=lambda path: path.stem.rpartition("-")[2])
    notes = [read_json(path) for path in paths[-INCIDENTS_SHOWN:]]
    return {int(note["step"]): str(note["why"]) for note in notes}


def _page(  # noqa: PLR0917 - what the page shows
    workspace: Path, plan: Plan, step: int, loss: float | None, incident: str | None, side_px: int
) -> StepPage:
    """One step; the loss is the one that was measured on it."""
    name = plan.manifest.name
    positions = plan.positions(step).tolist()
    shown = positions[: SAMPLES_PER_INCIDENT if incident else SAMPLES_PER_STEP]
    rows = plan.sample_rows(workspace, shown, _COLUMNS)
    datasets = [plan.header.datasets[plan.dataset_of(position)].name for position in shown]
    samples = [
        show_sample(workspace, workspace / "samples" / dataset, row, side_px)
        for dataset, row in zip(datasets, rows, strict=True)
    ]
    return StepPage(
        run=name,
        step=step,
        num_steps=plan.num_steps,
        link=f"steps/{name.replace('/', '-')}-{step:06d}.html",
        trained_tokens=plan.trained_tokens(step),
        rows=len(plan.rows(step)),
        samples=samples,
        not_shown=len(positions) - len(shown),
        loss=loss,
        incident=incident,
    )
