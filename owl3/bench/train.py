"""`owl3 bench train`: what the training loop costs beside the model, on this machine.

    python -m owl3.bench train --out FOLDER [steps=12] [rounds=2]

A small world of its own (pictures, captions, a plan) is made in FOLDER, and one tiny stage is trained on it, again and
again, all ways in turn so that all meet the same weather:

    bare              forward, backward and AdamW over batches that lie in memory: a loop and nothing else
    torch, deepspeed  the stage as it runs, with loader, exchange and records, on either engine
    unpacked          the stage with a row per sample, padded to the longest of its micro-batch

Beside it: data wait, real tokens among those computed, a mixed batch of 0 to 8 pictures against the padded two-softmax
way, seconds from a start to the first step after a checkpoint, and checkpoint bytes per second against the bare disk.
"""

import json
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from owl3.bench.attention import train_mixed_batch
from owl3.bench.tables import Figure, markdown, write_figures
from owl3.bench.train_disk import checkpoint_rates, resume_seconds, train_in_process
from owl3.bench.train_world import bench_recipe, make_world
from owl3.data.plan import make_plan
from owl3.train import distributed
from owl3.train.assemble import StepSource, load_tokenizer, make_model
from owl3.train.metrics import read_metrics
from owl3.train.optim import adamw_arguments, freeze, parameter_groups
from owl3.train.run import find_start, fix_arithmetic
from owl3.train.stages import TrainRecipe, stage_folder

TARGETS: dict[str, tuple[float, Literal["higher", "lower"]]] = {
    "data wait": (0.05, "lower"),
    "real tokens among computed": (0.95, "higher"),
    "mixed batch: padded / packed seconds": (2, "higher"),
    "resume: seconds to the first step beyond imports": (10, "lower"),
}
"""What is promised of a ratio; the others are there to be read."""

_NOTE = """
Data wait is the share of a step in which the process that trains waits for its loader (one worker), after the first two
steps. The bare loop has its batches in memory and nobody beside it; a stage has its pictures read and decoded by a
worker that shares memory and cores with it: `loop / bare loop` is what loading and the loop cost together, and on two
cores more of the first. Both are wall clock: they mean something only where nothing else runs.
"""


def run(out: Path, steps: int = 12, rounds: int = 2) -> dict[str, Any]:
    """Measure, and write `train.json` and `train.md` into `out`."""
    workspace = out / "workspace"
    make_world(workspace)
    recipes = {
        "torch": bench_recipe("torch", "torch", steps),
        "deepspeed": bench_recipe("deepspeed", "deepspeed", steps),
        "unpacked": bench_recipe("unpacked", "torch", steps, pack=False),
    }
    for recipe in recipes.values():
        make_plan(recipe.stages[0].data, workspace, run_name=recipe.name, stage="pretrain")
    ways: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "bare": partial(_bare_loop, recipes["torch"], workspace),
        **{name: partial(_stage, recipe, workspace) for name, recipe in recipes.items()},
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    waits: list[float] = []
    mfu: list[float] = []
    for _ in range(rounds):
        for name, way in ways.items():
            records = way()[2:]  # the first steps warm up
            seconds[name].append(statistics.median(record["seconds"] for record in records))
            if name == "deepspeed":
                waits += [record["data_wait"] for record in records]
                mfu += [record["mfu"] for record in records if record["mfu"] is not None]
    step_s = {name: statistics.median(values) for name, values in seconds.items()}
    mixed = train_mixed_batch(torch.device("cuda" if torch.cuda.is_available() else "cpu"))["seconds"]
    result = {
        "steps": steps,
        "seconds_per_step": seconds,
        "ratios": {
            "data wait": statistics.median(waits),
            "loop / bare loop": step_s["torch"] / step_s["bare"],
            "deepspeed / torch": step_s["deepspeed"] / step_s["torch"],
            "unpacked / packed seconds": step_s["unpacked"] / step_s["torch"],
            "real tokens among computed": _real_share(recipes["torch"], workspace),
            "mixed batch: padded / packed seconds": mixed["padded"] / mixed["packed"],
            "resume: seconds to the first step beyond imports": resume_seconds(out / "resume", steps),
        },
        "checkpoint_bytes_per_s": checkpoint_rates(out / "disk"),
        "mfu": statistics.median(mfu) if mfu else None,
    }
    shutil.rmtree(workspace)
    (out / "train.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    _write_table(out / "train.md", result)
    return result


def _stage(recipe: TrainRecipe, workspace: Path) -> list[dict[str, Any]]:
    """Run the stage from its beginning, in a process of its own; return its records."""
    folder = stage_folder(workspace, recipe.name, "pretrain")
    shutil.rmtree(folder, ignore_errors=True)
    train_in_process(recipe, workspace)
    return read_metrics(folder / "metrics.jsonl")


def _bare_loop(recipe: TrainRecipe, workspace: Path) -> list[dict[str, Any]]:
    """The same batches, model and optimizer without anything of ours around them."""
    stage = recipe.stages[0]
    fix_arithmetic(stage)
    world = distributed.start()
    tokenizer = load_tokenizer(recipe, workspace)
    source = StepSource(stage, find_start(recipe, stage, workspace), workspace, world, tokenizer)
    model = make_model(recipe, stage, tokenizer, None).to(world.device)
    source.read_for(model.config)
    freeze(model, stage.trainable)
    optimizer = torch.optim.AdamW(adamw_arguments(parameter_groups(model, stage), stage.optimizer))
    batches = [
        (step.trained_tokens, [dict(batch.to(world.device, torch.float32)) for batch in step.micro_batches])
        for step in source.steps_from(0)
    ]
    distributed.stop()
    records = []
    for trained_tokens, micro_batches in batches:
        began = time.perf_counter()
        for inputs in micro_batches:
            torch.autograd.backward(model(**inputs, num_items_in_batch=trained_tokens).loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), stage.optimizer.clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        if world.device.type == "cuda":
            torch.cuda.synchronize(world.device)
        records.append({"seconds": time.perf_counter() - began})
    return records


def _real_share(recipe: TrainRecipe, workspace: Path) -> float:
    """Tokens of samples among all columns of the batches that the model is given."""
    stage = recipe.stages[0]
    world = distributed.start()
    tokenizer = load_tokenizer(recipe, workspace)
    source = StepSource(stage, find_start(recipe, stage, workspace), workspace, world, tokenizer)
    source.read_for(make_model(recipe, stage, tokenizer, None).config)
    segments = [batch.text["segment_ids"] for step in source.steps_from(0) for batch in step.micro_batches]
    distributed.stop()
    return sum(int((part > 0).sum()) for part in segments) / sum(part.numel() for part in segments)


def _write_table(path: Path, result: dict[str, Any]) -> None:
    figures = [
        Figure(name, round(value, 3), *TARGETS.get(name, (None, "higher"))) for name, value in result["ratios"].items()
    ]
    seconds = [
        (name, f"{statistics.median(values):.4f}", ", ".join(f"{value:.4f}" for value in values))
        for name, values in result["seconds_per_step"].items()
    ]
    rates = [(name, f"{value / 1e6:.0f}") for name, value in result["checkpoint_bytes_per_s"].items()]
    more = [
        _NOTE,
        markdown(("seconds per step", "median", "each round"), seconds),
        markdown(("checkpoint", "MB/s"), rates),
    ]
    if result["mfu"] is not None:
        more.append(f"Model FLOPs utilisation of the tiny model: {result['mfu']:.3f}.")
    write_figures(path, "The training loop beside the model", figures, command="owl3 bench train", more=more)
