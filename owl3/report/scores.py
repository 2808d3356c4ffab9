"""Scores as the report shows them: by checkpoint, over steps, and over the number of pictures in the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from owl3.cards import charts
from owl3.cards.runs import Evaluation
from owl3.eval.distractor import PAPER_CURVE
from owl3.eval.plots import cells_of
from owl3.eval.results import read_summary


def score_curve(results: Sequence[Evaluation], steps: int) -> Markup | None:
    """Scores by step with their 95 % intervals, blind runs left out; the stage's end stands at its last step.

    Args:
        steps: The stage's steps.
    """
    series: dict[str, list[tuple[float, float]]] = {}
    bands: dict[str, list[tuple[float, float, float]]] = {}
    for result in results:
        if not result.blind and result.score is not None:
            step = float(steps if result.checkpoint == "end" else result.checkpoint.removeprefix("step-"))
            series.setdefault(result.title, []).append((step, result.score))
            if result.interval is not None:
                bands.setdefault(result.title, []).append((step, *result.interval))
    drawn = {name: sorted(points) for name, points in series.items() if len(points) > 1}
    shaded = {name: sorted(bands[name]) for name in drawn if name in bands}
    return charts.lines(drawn, caption="Score by checkpoint, with 95 % intervals", bands=shaded) if drawn else None


def score_table(results: Sequence[Evaluation]) -> dict[str, Any] | None:
    """Checkpoints by tasks: in each cell the score, its interval, the blind one; a task's best score is marked.

    The best is sought among those that answered most questions: a part of them is another, often luckier, task.
    """
    if not results:
        return None
    titles = sorted({result.title for result in results})
    most = {title: max(r.num_questions for r in results if r.title == title) for title in titles}
    best: dict[str, Evaluation] = {}
    for result in results:
        if not result.blind and result.score is not None and result.num_questions == most[result.title]:
            known = best.get(result.title)
            best[result.title] = result if known is None or result.score > (known.score or 0) else known
    rows: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
    for result in results:
        cell = rows.setdefault((result.run, result.checkpoint), {}).setdefault(
            result.title, {"score": None, "blind": None}
        )
        cell["blind" if result.blind else "score"] = None if result.score is None else f"{result.score:.3f}"
        cell["questions"] = result.num_questions
        if not result.blind and result.interval is not None:
            cell["interval"] = "{:.3f}-{:.3f}".format(*result.interval)
        cell["best"] = cell.get("best", False) or (not result.blind and result is best.get(result.title))
    return {
        "titles": titles,
        "heads": [_head(title, results) for title in titles],
        "rows": [
            {"run": run, "checkpoint": checkpoint, "cells": [cells.get(title, {}) for title in titles]}
            for (run, checkpoint), cells in rows.items()
        ],
    }


def _head(title: str, results: Sequence[Evaluation]) -> dict[str, str]:
    """A task's column: its name, its figure, what guessing would reach, and what the paper reports for it."""
    one = next(result for result in results if result.title == title)
    paper = ", ".join(f"{model} {value:.3f}" for model, value in one.paper)
    beside = [f"random {one.random:.3f}"] if one.random is not None else []
    beside += [f"paper: {paper}"] if paper else []
    return {"title": title, "figure": one.primary, "beside": "; ".join(beside)}


def distractor_curve(results: Sequence[Evaluation]) -> Markup | None:
    """Distractor Resistance of what each stage ended with: circular accuracy over the number of pictures shown."""
    series: dict[str, list[tuple[float, float]]] = {}
    for result in results:
        if result.checkpoint != "end" or result.blind:
            continue
        cells = cells_of(read_summary(result.folder)["figures"])
        points = sorted((float(number), value) for (number, depth), value in cells.items() if depth is None)
        if len(points) > 1:
            series[f"{result.run} {result.title}"] = points
    if any("distractor-mmbench" in name for name in series):
        series |= {f"{model}, published": sorted(curve.items()) for model, curve in PAPER_CURVE.items()}
    return charts.lines(series, caption="Distractor resistance", x_label="pictures shown") if series else None
