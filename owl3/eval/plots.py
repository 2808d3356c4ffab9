"""Scores as pictures: distractors with the paper's curve beside, the needle grid, accuracy over frames.

OUT/distractor-mmbench.png   circular accuracy over the number of pictures
OUT/needle-scenes.png        circular accuracy by length (across) and depth (down)
OUT/frames.png, frames.json  the primary figure of each task over the number of frames
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from owl3.eval.distractor import PAPER_CURVE
from owl3.storage import write_atomic

_CELL = re.compile(r"circular_accuracy_(\d+)(?:@([\d.]+))?$")
CHANCE = "random choice"

Summary = Mapping[str, Any]


def cells_of(figures: Mapping[str, float]) -> dict[tuple[int, float | None], float]:
    """(number of pictures, depth or None) -> circular accuracy, from figures such as `circular_accuracy_8@0.5`."""
    found = ((_CELL.match(name), value) for name, value in figures.items())
    return {(int(m[1]), float(m[2]) if m[2] else None): value for m, value in found if m}


def draw_curves(report: Mapping[str, Summary], out: Path) -> list[str]:
    """Draw every result that is a curve or a grid; other results have no picture.

    Args:
        report: title -> summary.
        out: Where `TITLE.png` is written.
    """
    drawn = []
    for title, summary in report.items():
        cells = cells_of(summary["figures"])
        if len(cells) < 2:
            continue
        path = out / f"{title}.png"
        if any(depth is not None for _, depth in cells):
            _draw_grid(title, {(n, depth or 0.0): value for (n, depth), value in cells.items()}, path)
        else:
            _draw_distractors(title, summary, {n: value for (n, _), value in cells.items()}, path)
        drawn.append(str(path))
    return drawn


def draw_sweep(sweep: Mapping[int, Mapping[str, Summary]], out: Path) -> list[str]:
    """Draw each task's primary figure, with its interval, over the number of frames; write the numbers beside."""
    points = sweep_points(sweep)
    write_atomic(out / "frames.json", json.dumps(points, indent=1).encode() + b"\n")
    figure, axes = _axes("frames of a video", "score", log=True)
    for title, rows in points.items():
        numbers, values = [row["frames"] for row in rows], [row["score"] for row in rows]
        axes.plot(numbers, values, marker="o", label=title)
        axes.fill_between(numbers, [row["low"] for row in rows], [row["high"] for row in rows], alpha=0.15)
    axes.set_xticks(sorted(sweep), labels=[str(number) for number in sorted(sweep)])
    _finish(figure, axes, "Accuracy over frames, with 95 % intervals", out / "frames.png")
    return [str(out / "frames.png")]


def sweep_points(sweep: Mapping[int, Mapping[str, Summary]]) -> dict[str, list[dict[str, Any]]]:
    """title -> rows of frames, figure, score and its interval, in the order of frames."""
    points: dict[str, list[dict[str, Any]]] = {}
    for number in sorted(sweep):
        for title, summary in sweep[number].items():
            score = summary["figures"].get(summary["primary"])
            if score is None:
                continue
            interval = summary["interval_95"] or {"low": score, "high": score}
            row = {"frames": number, "figure": summary["primary"], "score": score}
            points.setdefault(title, []).append(row | {"low": interval["low"], "high": interval["high"]})
    return points


def _draw_distractors(title: str, summary: Summary, curve: Mapping[int, float], path: Path) -> None:
    figure, axes = _axes("pictures shown", "circular accuracy", log=True)
    numbers = sorted(curve)
    axes.plot(numbers, [curve[number] for number in numbers], marker="o", linewidth=2, label="this checkpoint")
    if summary["task"] == "distractor-mmbench":
        for model, known in PAPER_CURVE.items():
            axes.plot(list(known), list(known.values()), marker="x", linestyle="--", label=f"{model}, published")
    floor = summary["floors"]["random"]
    if floor is not None:
        axes.axhline(floor, color="grey", linestyle=":", label=CHANCE)
    axes.set_xticks(numbers, labels=[str(number) for number in numbers])
    _finish(figure, axes, title, path)


def _draw_grid(title: str, cells: Mapping[tuple[int, float], float], path: Path) -> None:
    from matplotlib.figure import Figure

    lengths, depths = sorted({n for n, _ in cells}), sorted({depth for _, depth in cells})
    nothing = float("nan")
    values = [[cells.get((length, depth), nothing) for length in lengths] for depth in depths]
    figure = Figure(figsize=(1.2 * len(lengths) + 3, 0.6 * len(depths) + 2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            ink = "white" if value > 0.6 else "black"
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=9, color=ink)
    axes.set_xticks(range(len(lengths)), labels=[str(length) for length in lengths])
    axes.set_yticks(range(len(depths)), labels=[f"{depth:.0%}" for depth in depths])
    axes.set(title=title, xlabel="pictures shown", ylabel="depth of the one asked about")
    figure.colorbar(image, ax=axes, label="circular accuracy")
    _save(figure, path)


def _axes(across: str, up: str, *, log: bool) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel=across, ylabel=up, ylim=(0, 1), xscale="log" if log else "linear")
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    return figure, axes


def _finish(figure: Any, axes: Any, title: str, path: Path) -> None:
    axes.set_title(title)
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without date and version the same numbers give the same file.
    figure.savefig(path, dpi=110, metadata={"Software": None})
