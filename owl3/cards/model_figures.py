"""What a model card says of a trained stage: computed from its plan, its run and its scores, never typed.

The figures follow the stage back through the stages whose weights it started from, because a model has learned from all
of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from owl3.cards import runs
from owl3.errors import InputError
from owl3.planfile import Plan, PlannedDataset
from owl3.sampleindex import index_folder, kept_rows
from owl3.storage import read_json

Stage = dict[str, Any]
Positions = npt.NDArray[np.int64]


def lineage(workspace: Path, name: str) -> list[runs.Run]:
    """A stage and the stages before it, the first one first.

    Raises:
        InputError: one of them is not trained to its end.
    """
    found: list[runs.Run] = []
    current: str | None = name
    while current is not None:
        run = runs.read_run(workspace, workspace / "runs" / current)
        if run is None or run.manifest is None:
            known = ", ".join(r.name for r in runs.iter_runs(workspace) if r.manifest is not None) or "none"
            raise InputError(f"run {current}: is not trained to its end (finished: {known})")
        found.insert(0, run)
        current = run.parent
    return found


def model_figures(workspace: Path, name: str) -> dict[str, Any]:
    """Every figure of a model card, by name."""
    stages = [_stage(workspace, run) for run in lineage(workspace, name)]
    return {
        "stages": stages,
        "samples_seen": sum(stage["samples_seen"] for stage in stages),
        "trained_tokens": sum(stage["trained_tokens"] for stage in stages),
        "pictures_seen": sum(stage["pictures_seen"] for stage in stages),
        "scores": list(_scores(stages[-1]["run"], workspace)),
        "licences": _licences(workspace, stages[-1]["run"]),
    }


def _stage(workspace: Path, run: runs.Run) -> Stage:
    """One stage: what was planned, what was dropped on the way, what was really seen."""
    plan = Plan.open(workspace / "plans" / run.name)
    drops = _drops(run.folder)
    order = np.asarray(plan.order[: run.steps * plan.global_batch_size], dtype=np.int64)
    manifest = run.manifest
    assert manifest is not None
    seen = plan.seen_before(run.steps)
    steps = np.asarray(plan.steps[: run.steps])
    stage_recipe = manifest.recipe.get("stage", {})
    return {
        "run": run.name,
        "digest": manifest.digest,
        "plan": plan.digest,
        "steps": run.steps,
        "global_batch_size": plan.global_batch_size,
        "samples_seen": len(order) - sum(drops.values()),
        "dropped": dict(sorted(drops.items())),
        "trained_tokens": int(steps["trained_tokens"].sum()),
        "tokens": int(steps["tokens"].sum()),
        "pictures_seen": int(steps["images"].sum()),
        "prefix_digest": plan.prefix_digest(run.steps),
        "checkpoints": [{"step": c.step, "weights": c.weights} for c in run.checkpoints],
        "trainable": stage_recipe.get("trainable", []),
        "learning_rate": stage_recipe.get("learning_rate", {}),
        "datasets": [_dataset(dataset, order, seen) for dataset in plan.header.datasets],
    }


def _dataset(dataset: PlannedDataset, order: Positions, seen: Positions) -> dict[str, Any]:
    """What of one data set was drawn; a part of a long sample is a draw, and its sample is seen once."""
    end = dataset.offset + dataset.num_samples
    return {
        "name": dataset.name,
        "digest": dataset.digest,
        "samples": dataset.num_samples,
        "draws": int(((order >= dataset.offset) & (order < end + dataset.num_parts)).sum()),
        "distinct": int(((seen >= dataset.offset) & (seen < end)).sum()),
    }


def _drops(folder: Path) -> Counter[str]:
    path = folder / "drops.parquet"
    return Counter(pq.read_table(path)["reason"].to_pylist()) if path.is_file() else Counter()


def _scores(name: str, workspace: Path) -> Iterator[dict[str, Any]]:
    """Final scores, each with its blind run and the floors beside it."""
    results = [r for r in runs.all_evaluations(workspace / "runs" / name) if r.checkpoint == "end"]
    blind = {r.title: r.score for r in results if r.blind}
    for result in (r for r in results if not r.blind):
        summary: Mapping[str, Any] = read_json(result.folder / "summary.json")
        interval = summary.get("interval_95")
        yield {
            "task": result.title,
            "figure": result.primary,
            "score": result.score,
            "interval_95": [interval["low"], interval["high"]] if interval else None,
            "blind": blind.get(result.title),
            "questions": result.num_questions,
            "floors": summary.get("floors", {}),
        }


def _licences(workspace: Path, name: str) -> list[list[Any]]:
    """Licences of the distinct samples that the stage and those before it saw, by how many."""
    found: Counter[str] = Counter()
    for run in lineage(workspace, name):
        plan = Plan.open(workspace / "plans" / run.name)
        seen = plan.seen_before(run.steps)
        for dataset in plan.header.datasets:
            folder = index_folder(workspace, dataset.name, dataset.digest)
            for number, shard in enumerate(dataset.shards):
                last = dataset.num_samples if number + 1 == len(dataset.shards) else dataset.shards[number + 1].first
                low, high = dataset.offset + shard.first, dataset.offset + last
                local = seen[(seen >= low) & (seen < high)] - low
                licences = kept_rows(folder / f"{shard.name}.parquet", ["licence"])["licence"].take(local)
                found.update(" | ".join(sorted(str(text).split(" | "))) for text in licences.to_pylist())
    return [[licence, amount] for licence, amount in sorted(found.items(), key=lambda e: (-e[1], str(e[0])))]
