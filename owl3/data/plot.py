"""A plan as one picture: shares, epochs, how full rows are, and what each step carries."""

import math
from pathlib import Path
from typing import Any

import numpy as np

from owl3.planfile import Plan
from owl3.storage import atomic_writer

_MAX_POINTS = 2000
_BLUE, _ORANGE, _GREY = "#2f6f9f", "#d9822b", "#9aa5ad"


def plot_plan(plan: Plan, path: Path) -> None:
    """Draw a plan's figures to a PNG or SVG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 7.5), layout="constrained")
    FigureCanvasAgg(figure)
    (shares, epochs), (rows, images) = figure.subplots(2, 2)
    figure.suptitle(
        f"{plan.manifest.name}: {plan.num_steps:,} steps x {plan.global_batch_size:,} samples, "
        f"rows {plan.header.figures['packing_efficiency']:.1%} full"
    )
    _draw_shares(shares, plan)
    _draw_epochs(epochs, plan)
    _draw_rows(rows, plan)
    _draw_steps(images, plan)
    with atomic_writer(path) as handle:
        figure.savefig(handle, format=path.suffix.lstrip(".") or "png", dpi=110)


def _draw_shares(axes: Any, plan: Plan) -> None:
    datasets = plan.header.figures["datasets"]
    place = np.arange(len(datasets))
    for offset, key, label, colour in (
        (-0.27, "asked_percent", "asked, of samples", _GREY),
        (0.0, "given_percent", "given, of samples", _BLUE),
        (0.27, "token_percent", "given, of text tokens", _ORANGE),
    ):
        axes.barh(place + offset, [dataset[key] for dataset in datasets], height=0.25, label=label, color=colour)
    axes.set_yticks(place, [dataset["name"] for dataset in datasets])
    axes.invert_yaxis()
    axes.set_xlabel("percent")
    axes.set_title("Shares")
    axes.legend(fontsize=8)


def _draw_epochs(axes: Any, plan: Plan) -> None:
    datasets = plan.header.figures["datasets"]
    bars = axes.barh([dataset["name"] for dataset in datasets], [d["epochs"] for d in datasets], color=_BLUE)
    axes.bar_label(bars, [f" {d['epochs']:.2f} x {d['usable']:,}" for d in datasets], fontsize=8)
    axes.axvline(1, color=_GREY, linestyle="--", linewidth=1)
    axes.margins(x=0.25)
    axes.invert_yaxis()
    axes.set_xlabel("epochs x samples; the dashed line: each sample once")
    axes.set_title("Epochs of each dataset")


def _draw_rows(axes: Any, plan: Plan) -> None:
    stride = math.ceil(len(plan.row_costs) / 1_000_000)
    tokens = np.asarray(plan.row_costs[::stride]["tokens"]) / plan.header.max_tokens
    tiles = np.asarray(plan.row_costs[::stride]["tiles"]) / plan.header.max_tiles
    bins = np.linspace(0, 1, 41).tolist()
    axes.hist([tokens, tiles], bins=bins, label=["text tokens", "picture tiles"], color=[_BLUE, _ORANGE])
    axes.set_xlabel("part of the row's limit")
    axes.set_ylabel("rows" if stride == 1 else f"rows (every {stride}th)")
    axes.set_title("How full rows are")
    axes.legend(fontsize=8)


def _draw_steps(axes: Any, plan: Plan) -> None:
    stride = math.ceil(plan.num_steps / _MAX_POINTS)
    steps = np.arange(0, plan.num_steps, stride)
    axes.plot(steps, plan.steps["tiles"][::stride], color=_ORANGE, linewidth=0.8, label="picture tiles")
    axes.set_ylabel("picture tiles", color=_ORANGE)
    axes.set_ylim(bottom=0)
    beside = axes.twinx()
    beside.plot(steps, plan.steps["tokens"][::stride], color=_BLUE, linewidth=0.8)
    beside.set_ylabel("text tokens", color=_BLUE)
    beside.set_ylim(bottom=0)
    axes.set_xlabel("step")
    axes.set_title("What each step carries")
