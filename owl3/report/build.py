"""`owl3 report`: static pages about a workspace, from what lies in it.

    report/
        index.html             what came in, what was built, what was trained, what it scored
        cards/NAME-VERSION.html
        steps/RUN-STAGE-000000.html
        trace.html             one URL, from its host to the scores

No server, no script, no request: the pages can be mailed, printed and kept.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import jinja2

from owl3.cards import charts
from owl3.errors import InputError
from owl3.progress import SILENT, Progress
from owl3.report import collect, lineage, links, steps
from owl3.report.pages import page_environment
from owl3.report.scores import distractor_curve, score_curve, score_table
from owl3.report.tracing import trace_page
from owl3.storage import write_atomic

logger = logging.getLogger(__name__)

THUMBNAIL_PX = 132
TRACE_PAGE = "trace.html"


def build_report(
    workspace: Path, datacards_dir: Path, out: Path, *, progress: Progress = SILENT, thumbnail_px: int = THUMBNAIL_PX
) -> Path:
    """Write the pages into `out` and return the path of index.html.

    Raises:
        InputError: there is no workspace.
    """
    environment = page_environment()
    with collect.open_ledger(workspace) as db:
        found = collect.artifacts(workspace, datacards_dir)
        progress.start("report", total=len(found) + 3)
        page = _page(db, Where(workspace, datacards_dir, thumbnail_px), found, progress)
    _write_steps(environment, out, page["step_pages"])
    for artifact in found:
        if artifact.manifest.kind == "card" and (artifact.folder / "card.html").is_file():
            write_atomic(out / card_link(artifact), (artifact.folder / "card.html").read_bytes())
    if page["trace"] is not None:
        write_atomic(out / TRACE_PAGE, trace_page(page["trace"], workspace, back="index.html#trace"))
    index = out / "index.html"
    write_atomic(index, environment.get_template("index.html.jinja").render(page).encode())
    progress.finish(str(index))
    return index


def card_link(artifact: collect.Artifact) -> str:
    """Where a card's page lies, relative to index.html."""
    return f"cards/{artifact.manifest.name.replace('/', '-')}.html"


@dataclass(frozen=True, slots=True)
class Where:
    """What a report is about, and how large its thumbnails are."""

    workspace: Path
    datacards_dir: Path
    thumbnail_px: int


def _page(
    db: duckdb.DuckDBPyConnection, where: Where, found: Sequence[collect.Artifact], progress: Progress
) -> dict[str, Any]:
    workspace, thumbnail_px = where.workspace, where.thumbnail_px
    funnels, grids, built = [], [], []
    for artifact in found:
        kind, name = artifact.manifest.kind, artifact.manifest.name
        if kind in ("source", "shards", "samples"):
            funnels.append(_funnel(artifact))
        if kind == "shards":
            grids.append({"name": name, "cells": collect.pictures_of(db, workspace, name, thumbnail_px)})
        if kind == "samples":
            built.append({"name": name, "samples": collect.samples_of(db, workspace, name, thumbnail_px)})
        progress.advance()
    views = collect.run_views(workspace)
    pages = {view.run.name: _steps(workspace, view, thumbnail_px) for view in views}
    example = collect.example_trace(db, workspace, where.datacards_dir)
    progress.advance()
    return {
        "title": workspace.resolve().name,
        "tiles": _tiles(found, views),
        "last_stage": views[-1].run.name if views else "",
        "last_scores": _last_scores(views),
        "funnels": funnels,
        "grids": grids,
        "built": built,
        "graph": lineage.draw(found),
        "links": links.draw(links.link_health(db, workspace)),
        "runs": [_run(view) | {"steps": pages[view.run.name]} for view in views],
        "step_pages": pages,
        "scores": score_table([result for view in views for result in view.evaluations]),
        "distractors": distractor_curve([result for view in views for result in view.evaluations]),
        "cards": [
            {"name": a.manifest.name, "link": card_link(a), "digest": a.manifest.digest}
            for a in found
            if a.manifest.kind == "card"
        ],
        "trace": example,
    }


def _steps(workspace: Path, view: collect.RunView, side_px: int) -> list[steps.StepPage]:
    """Pages of a run's steps; none, with a line in the log, when its samples are not what was planned."""
    losses = {int(step): loss for step, loss in view.curves.get("loss", [])}
    try:
        return steps.step_pages(workspace, view.run, losses, side_px)
    except InputError as error:
        logger.warning("no step pages for %s: %s", view.run.name, error)
        return []


def _write_steps(environment: jinja2.Environment, out: Path, pages: Mapping[str, list[steps.StepPage]]) -> None:
    template = environment.get_template("step.html.jinja")
    for siblings in pages.values():
        for page in siblings:
            write_atomic(out / page.link, template.render(page=page, siblings=siblings).encode())


def _funnel(artifact: collect.Artifact) -> dict[str, Any]:
    counts = artifact.manifest.counts
    drops = collect.drops(artifact.manifest)
    return {
        "label": artifact.label,
        "kind": artifact.manifest.kind,
        "name": artifact.manifest.name,
        "counts": counts,
        "reasons": len(drops),
        "kept_share": charts.share(counts.kept, counts.seen),
        "width": f"{100 * counts.kept / max(counts.seen, 1):.2f}",
        "bars": charts.bars(
            drops, caption="Dropped, by reason", hints=collect.reason_hints(artifact.manifest), total=counts.seen
        )
        if drops
        else None,
    }


def _run(view: collect.RunView) -> dict[str, Any]:
    curves = [
        charts.lines({"loss": view.curves["loss"]} | _only(view, "validation_loss"), caption="Loss per trained token")
        if "loss" in view.curves
        else None,
        charts.lines(view.rates, caption="Learning rate by group") if view.rates else None,
        charts.lines(_only(view, "grad_norm"), caption="Gradient norm, logarithmic", log_y=True)
        if "grad_norm" in view.curves
        else None,
        charts.lines(view.phases, caption="Seconds of a step by phase") if view.phases else None,
        score_curve(view.evaluations, view.run.steps),
    ]
    stats = view.stats
    wanted = ("steps", "loss", "trained_tokens", "images")
    return {
        "name": view.run.name,
        "parent": view.run.parent,
        "anchor": view.run.name.replace("/", "-"),
        "facts": [
            *((key.replace("_", " ").capitalize(), charts.number(stats[key])) for key in wanted if key in stats),
            ("Checkpoints", charts.number(len(view.run.checkpoints))),
        ],
        "curves": [curve for curve in curves if curve is not None],
        "finished": view.run.manifest is not None,
    }


def _only(view: collect.RunView, key: str) -> dict[str, list[tuple[float, float]]]:
    return {key.replace("_", " "): view.curves[key]} if key in view.curves else {}


def _tiles(found: Sequence[collect.Artifact], views: Sequence[collect.RunView]) -> list[dict[str, str]]:
    def total(kind: str, attribute: str) -> int:
        return sum(getattr(a.manifest.counts, attribute) for a in found if a.manifest.kind == kind)

    return [
        {"title": "URLs seen", "value": charts.number(total("shards", "seen")), "note": ""},
        {"title": "Pictures and clips kept", "value": charts.number(total("shards", "kept")), "note": ""},
        {"title": "Samples built", "value": charts.number(total("samples", "kept")), "note": ""},
        {"title": "Steps trained", "value": charts.number(sum(view.run.steps for view in views)), "note": ""},
    ]


def _last_scores(views: Sequence[collect.RunView]) -> list[dict[str, str]]:
    """What the last stage ended with, as tiles."""
    tiles = []
    final = [r for view in views[-1:] for r in view.evaluations if r.checkpoint == "end"]
    for result in final:
        if not result.blind and result.score is not None:
            blind = next((r.score for r in final if r.blind and r.title == result.title), None)
            note = f"blind {blind:.3f}" if blind is not None else ""
            tiles.append({"title": result.title, "value": f"{result.score:.3f}", "note": note})
    return tiles
