"""Train one recipe in several ways and compare: what is each piece of the model worth?

    runs/ablation-concat-1/STAGE     a variant and a seed is a run like any other: planned, trained, evaluated
    ablations/ablation/table.md      the comparison, and table.json

Data are prepared once. Each run differs from the first variant's run of the same seed in `model.config` alone: the same
samples in the same order for the same steps. What is done is not done again: a stopped ablation goes on where it was.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from owl3 import launch
from owl3.config import plain
from owl3.demo.world import served
from owl3.errors import ConfigError
from owl3.eval import queue
from owl3.eval.hand_over import scores
from owl3.pipeline import Place, Step, plan_stage, steps_before_training, training_steps
from owl3.progress import SILENT, Progress
from owl3.recipe import Recipe
from owl3.storage import write_atomic
from owl3.train.stages import stage_folder


@dataclass(frozen=True)
class Variant:
    """One way to train, on one seed."""

    name: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        scores: Primary figure of each task, by title.
        step_s: Median seconds of a training step in the last stage.
        memory_bytes: Peak memory of the training process in the last stage.
        answers_per_s: Questions answered per second in the evaluations of the last stage.
        parameters: How many numbers the model learns.
    """

    variant: str
    seed: int
    scores: dict[str, float]
    step_s: float
    memory_bytes: int
    answers_per_s: float
    parameters: int


@dataclass(frozen=True)
class Line:
    """A variant over all its seeds. `scores` are (mean, standard deviation over seeds) by `title figure`."""

    variant: str
    about: str
    seeds: int
    scores: dict[str, tuple[float, float]]
    step_s: float
    memory_bytes: int
    answers_per_s: float
    parameters: int


@dataclass(frozen=True)
class Ablation:
    """The comparison: a line per variant, and the runs that it is made of."""

    lines: list[Line]
    runs: list[Trained]
    folder: Path


def variants_of(recipe: Recipe) -> list[Variant]:
    """Every variant on every seed, as recipes of their own; seed by seed, so that a stopped ablation is even.

    Raises:
        ConfigError: the recipe has no `ablation`, no model, no stages or no evaluation to compare by.
    """
    for section in ("ablation", "model", "stages", "eval"):
        if not getattr(recipe, section):
            raise ConfigError(f"recipe {recipe.name}: has no section {section!r}, which an ablation needs")
    assert recipe.ablation is not None
    return [
        Variant(variant.name, seed, _with(recipe, variant.name, variant.config, seed))
        for seed in recipe.ablation.seeds
        for variant in recipe.ablation.variants
    ]


def _with(recipe: Recipe, variant: str, config: Mapping[str, Any], seed: int) -> Recipe:
    data = plain(recipe)
    data["name"] = f"{recipe.name}-{variant}-{seed}"
    data["seed"] = data["model"]["seed"] = seed
    data["model"]["config"] |= config
    for stage in data["stages"]:
        stage["data"]["seed"] = seed
    return Recipe.model_validate({**data, "ablation": None, "card": None})


def ablate(
    recipe: Recipe, workspace: Path, progress: Progress = SILENT, processes: int = 1, only: Sequence[str] = ()
) -> Ablation:
    """Prepare the data, train and evaluate what is not there yet, and write the table.

    Args:
        only: Names of variants; empty means all. The table holds every variant that is complete.

    Raises:
        ConfigError: as `variants_of`, or `only` names no variant.
        Owl3Error: from the step that could not be taken; running again goes on there.
    """
    wanted = variants_of(recipe)
    unknown = set(only) - {variant.name for variant in wanted}
    if unknown:
        raise ConfigError(f"recipe {recipe.name}: no variant {min(unknown)!r}; one of {', '.join(_names(wanted))}")
    with served(recipe, workspace) as resolve:
        place = Place(workspace, workspace / "datacards", resolve, processes)
        for step in steps_before_training(recipe):
            if step.kind != "plan":
                step.run(recipe, place, progress)
    for variant in wanted:
        if not only or variant.name in only:
            _train(variant.recipe, place, progress)
    return write_table(recipe, workspace, [run for run in (_read(one, workspace) for one in wanted) if run])


def _train(recipe: Recipe, place: Place, progress: Progress) -> None:
    progress.start(recipe.name, 2 * len(recipe.stages) + 1)
    for step in _steps(recipe):
        step.run(recipe, place)
        progress.advance()
    # Only the end of the last stage is compared.
    stage = stage_folder(place.workspace, recipe.name, recipe.stages[-1].name)
    if queue.pending(stage):
        arguments = ["--drain", str(stage), "--workspace", str(place.workspace), "--threads", "1"]
        launch.run_module("owl3.eval", arguments, log=place.workspace / "logs" / f"eval-{recipe.name}.log")
    progress.finish()


def _steps(recipe: Recipe) -> Iterator[Step]:
    yield from (Step("plan", stage.name, plan_stage) for stage in recipe.stages)
    yield from training_steps(recipe)


def _names(variants: Sequence[Variant]) -> list[str]:
    return list(dict.fromkeys(variant.name for variant in variants))


def _read(variant: Variant, workspace: Path) -> Trained | None:
    """What a run came to; None while it is not complete."""
    recipe = variant.recipe
    assert recipe.eval is not None
    folder = stage_folder(workspace, recipe.name, recipe.stages[-1].name)
    if not (folder / "manifest.json").is_file():
        return None
    found = {score.title: score for score in scores(folder) if score.checkpoint == "end" and not score.blind}
    if found.keys() < {task.title for task in recipe.eval.tasks}:
        return None
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    timings = [json.loads(path.read_bytes()) for path in sorted(folder.glob("evals/end/*/timing.json"))]
    answered, seconds = (sum(timing[key] for timing in timings) for key in ("num_answered", "seconds"))
    return Trained(
        variant=variant.name,
        seed=variant.seed,
        scores={f"{s.title} {s.primary}": s.figures[s.primary] for s in found.values()},
        step_s=statistics.median(record["seconds"] for record in metrics),
        memory_bytes=max(record["memory_bytes"] for record in metrics),
        answers_per_s=round(answered / seconds, 2) if seconds else 0.0,
        parameters=num_parameters(folder / "model"),
    )


def num_parameters(model: Path) -> int:
    """Numbers in the weight files of a folder, from their headers; a tied head stands there once."""
    total = 0
    for path in sorted(model.glob("*.safetensors")):
        with path.open("rb") as handle:
            header = json.loads(handle.read(int.from_bytes(handle.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                total += math.prod(tensor["shape"])
    return total


def write_table(recipe: Recipe, workspace: Path, runs: list[Trained]) -> Ablation:
    """Put the runs of each variant together and write `table.md` and `table.json`."""
    assert recipe.ablation is not None
    folder = workspace / "ablations" / recipe.name
    lines = []
    for variant in recipe.ablation.variants:
        own = [run for run in runs if run.variant == variant.name]
        if own:
            lines.append(_line(variant.name, variant.about, own))
    made = Ablation(lines, runs, folder)
    write_atomic(folder / "table.json", json.dumps(as_json(made), indent=1).encode() + b"\n")
    write_atomic(folder / "table.md", markdown(recipe, lines).encode())
    return made


def _line(name: str, about: str, runs: Sequence[Trained]) -> Line:
    tasks = {title: [run.scores[title] for run in runs] for title in runs[0].scores}
    return Line(
        variant=name,
        about=about,
        seeds=len(runs),
        scores={title: (statistics.fmean(v), statistics.stdev(v) if len(v) > 1 else 0.0) for title, v in tasks.items()},
        step_s=statistics.median(run.step_s for run in runs),
        memory_bytes=max(run.memory_bytes for run in runs),
        answers_per_s=statistics.median(run.answers_per_s for run in runs),
        parameters=runs[0].parameters,
    )


def as_json(ablation: Ablation) -> dict[str, Any]:
    """Plain data: `variants` and the `runs` behind them."""
    return {"variants": [asdict(line) for line in ablation.lines], "runs": [asdict(run) for run in ablation.runs]}


def headings(lines: Sequence[Line]) -> list[str]:
    """Columns of the table."""
    titles = list(lines[0].scores) if lines else []
    return ["variant", *titles, "s per step", "peak MB", "answers per s", "parameters", "seeds"]


def cells(line: Line) -> list[str]:
    """A line as text."""
    found = [f"{mean:.3f} ± {deviation:.3f}" for mean, deviation in line.scores.values()]
    measured = [f"{line.step_s:.3f}", f"{line.memory_bytes / 1e6:.0f}", f"{line.answers_per_s:.1f}"]
    return [line.variant, *found, *measured, f"{line.parameters:,}", str(line.seeds)]


def markdown(recipe: Recipe, lines: Sequence[Line]) -> str:
    """The table, and what stands in it."""
    columns = headings(lines)
    rows = [columns, ["---"] * len(columns), *(cells(line) for line in lines)]
    steps = " + ".join(str(stage.data.steps) for stage in recipe.stages)
    return "\n".join(
        [
            f"# Ablation `{recipe.name}`",
            "",
            f"Same data, {steps} steps each. Scores are mean ± standard deviation over seeds. Time and memory are of",
            "the training process in the last stage, beside all else that ran on the machine.",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            *(f"- **{line.variant}**: {line.about}" for line in lines if line.about),
            "",
        ]
    )
