"""Results in the layout of lmms-eval's `*_results.json`, for whoever keeps a table of them.

Source: lmms-eval's evaluator (v0.5-0.7): `results[TASK]["METRIC,FILTER"]`, with standard errors beside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from owl3 import __version__

FILTER = "none"
_HALF_WIDTH_OF_95 = 1.959964


def lmms_results(report: Mapping[str, Mapping[str, Any]], model: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What lmms-eval would have written; a comma in a category's name would be one of its separators, and goes.

    Args:
        report: title -> summary, as `evaluate_checkpoint` returns it.
        model: The folder that was evaluated.
        settings: Limit, batch size, method.
    """
    results = {title: _figures(title, summary) for title, summary in report.items()}
    return {
        "results": results,
        "group_subtasks": {title: [] for title in report},
        "configs": {title: {"task": title, "metadata": _metadata(summary)} for title, summary in report.items()},
        "versions": {title: summary["task_version"] for title, summary in report.items()},
        "n-shot": dict.fromkeys(report, 0),
        "higher_is_better": {title: dict.fromkeys(summary["figures"], True) for title, summary in report.items()},
        "n-samples": {
            title: {"original": summary["num_questions"], "effective": summary["num_scored"]}
            for title, summary in report.items()
        },
        "config": {
            "model": "owl3",
            "model_args": f"pretrained={model}",
            "batch_size": settings.get("batch_size"),
            "limit": settings.get("limit"),
            "gen_kwargs": "do_sample=False",
        },
        "owl3_version": __version__,
    }


def _figures(title: str, summary: Mapping[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = {"alias": title}
    for name, value in ((name.replace(",", ""), value) for name, value in summary["figures"].items()):
        entry[f"{name},{FILTER}"] = value
        entry[f"{name}_stderr,{FILTER}"] = "N/A"
    interval = summary["interval_95"]
    if interval:
        width = interval["high"] - interval["low"]
        entry[f"{summary['primary']}_stderr,{FILTER}"] = round(width / 2 / _HALF_WIDTH_OF_95, 6)
    return entry


def _metadata(summary: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": summary["task_version"], "parsed": summary["parsed"], "errors": summary["errors"]}
