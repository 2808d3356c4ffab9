"""Minutes instead of GPU-days: does this stage fit this machine, and how long will it take?

On the ranks and with the data of the real run: the plan's heaviest steps forward, backward and through the optimizer; a
step in which one rank has no picture; one checkpoint written and read back. Nothing that it does enters the run.
"""

import json
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from owl3.config import Config, plain
from owl3.data.balance import idle_warning
from owl3.errors import CheckFailed, InputError
from owl3.planfile import Plan
from owl3.storage import write_atomic
from owl3.train.assemble import StepSource
from owl3.train.checkpoint import Checkpoints, TrainerState, state_reader
from owl3.train.distributed import World
from owl3.train.engine import Engine, take_step
from owl3.train.loop import memory_bytes
from owl3.train.optim import ParameterGroup, full_shape
from owl3.train.stages import StageConfig
from owl3.train.steps import Step

REPORT_NAME = "preflight.json"

_ASIDE = ".preflight"
"""Folder of the checkpoint that is written for a trial; never to be part of a run."""

_PICTURES = ("pixel_values", "image_rows", "image_starts")


class TriedStep(Config):
    """One step that was really taken."""

    why: str
    step: int
    tokens: int
    tiles: int
    seconds: float
    loss: float


class Report(Config):
    """What the preflight found; the largest value over ranks where they differ."""

    stage: str
    ranks: int
    steps: int
    parameters: dict[str, int]  # trained ones, by group
    tried: tuple[TriedStep, ...]
    peak_memory_bytes: int
    hours: float  # of the whole stage: every step at the speed of one of average size, and its checkpoints
    checkpoint_bytes: int
    checkpoint_seconds: float
    checkpoints: int  # written in the whole stage
    disk_needed_bytes: int  # kept at once: the limit, the best one if it is kept, one being written, and the export
    disk_free_bytes: int
    warnings: tuple[str, ...] = ()


def heaviest_steps(plan: Plan) -> dict[str, int]:
    """Steps that need most: of all steps, and those that hold the fullest single rows. One step may be named twice."""
    rows = plan.row_costs
    step_of_row = np.searchsorted(plan.steps["first_row"], np.arange(len(rows)), side="right") - 1
    return {
        "most text tokens": int(np.argmax(plan.steps["tokens"])),
        "most picture tiles": int(np.argmax(plan.steps["tiles"])),
        "longest row": int(step_of_row[np.argmax(rows["tokens"])]),
        "row with most tiles": int(step_of_row[np.argmax(rows["tiles"])]),
        "average step": int(np.argmin(np.abs(plan.steps["tokens"] - np.mean(plan.steps["tokens"])))),
    }


@dataclass(frozen=True)
class Trial:
    """A stage, assembled as for the real run."""

    stage: StageConfig
    source: StepSource
    engine: Engine
    groups: Sequence[ParameterGroup]
    world: World
    folder: Path
    grace_s: float  # what SIGTERM leaves for saving
    timeout_s: float  # how long ranks wait for one another


def sweep(folder: Path) -> None:
    """Remove from a stage's folder what a preflight left there that was killed."""
    shutil.rmtree(folder / _ASIDE, ignore_errors=True)


def preflight(trial: Trial) -> Report:
    """Try the stage out. Collective.

    Raises:
        CheckFailed: a loss or gradient is not finite, or what was read back differs.
        InputError: the disk can't hold the checkpoints.
    """
    stage, source, world, folder = trial.stage, trial.source, trial.world, trial.folder
    wanted = heaviest_steps(source.plan)
    tried: dict[int, TriedStep] = {}
    # The average step comes last, when nothing has to be compiled or allocated any more: it sets the estimate.
    for why, number in wanted.items():
        if number not in tried or why == "average step":
            tried[number] = _try_step(trial, why, number)
    average = tried[wanted["average step"]]
    no_picture = _try_step(trial, "rank 0 has no picture", 0, blind_rank=0)
    size, seconds = _save_and_load(trial)
    needed = size * (stage.save_total_limit + 2 + bool(stage.keep_best))
    checkpoints = -(-source.total_steps // stage.save_steps)
    saving_s = 0.0 if stage.save_async else checkpoints * seconds
    report = Report(
        stage=stage.name,
        ranks=world.size,
        steps=source.total_steps,
        parameters=_count(trial.groups),
        tried=(*sorted(tried.values(), key=lambda one: one.step), no_picture),
        peak_memory_bytes=max(world.gather(memory_bytes(world.device))),
        hours=(average.seconds * source.total_steps + saving_s) / 3600,
        checkpoint_bytes=size,
        checkpoint_seconds=seconds,
        checkpoints=checkpoints,
        disk_needed_bytes=needed,
        disk_free_bytes=shutil.disk_usage(folder).free,
        warnings=tuple(filter(None, [idle_warning(source.plan, world.data_size), *_late(trial, seconds)])),
    )
    if world.is_main:
        write_atomic(folder / REPORT_NAME, json.dumps(plain(report), indent=1).encode())
    if report.disk_free_bytes < needed:
        raise InputError(
            f"{folder}: checkpoints need {needed / 1e9:.1f} GB at once and {report.disk_free_bytes / 1e9:.1f} GB are "
            "free; make room, or lower save_total_limit"
        )
    return report


def _late(trial: Trial, saving_s: float) -> list[str]:
    """What the time that a checkpoint takes puts in danger."""
    warnings = []
    if saving_s > trial.grace_s:
        warnings.append(
            f"saving takes {saving_s:.0f} s and --grace leaves {trial.grace_s:.0f} s for it: a stop would lose up to "
            "save_steps steps; raise --grace, and what the scheduler waits between SIGTERM and SIGKILL"
        )
    if saving_s > trial.timeout_s / 2:
        warnings.append(
            f"saving takes {saving_s:.0f} s and ranks wait {trial.timeout_s:.0f} s for one another: on a busy disk "
            "the run would end while it saves; raise --timeout"
        )
    return warnings


def _try_step(trial: Trial, why: str, number: int, blind_rank: int | None = None) -> TriedStep:
    source, engine, world = trial.source, trial.engine, trial.world
    step: Step = next(source.steps_from(number))

    def gradients() -> float:
        total = 0.0
        for index, batch in enumerate(step.micro_batches, start=1):
            inputs = dict(batch.to(world.device, engine.dtype))
            if world.data_rank == blind_rank:
                inputs = _without_pictures(inputs)
            loss = engine.forward(inputs, step.trained_tokens, last=index == len(step.micro_batches))
            engine.backward(loss)
            total += float(loss.detach())
        return total

    began = time.perf_counter()
    loss_sum = sum(world.sum([gradients()])) / world.tensor_parallel
    result = take_step(engine, [0.0] * len(trial.groups), gradients)
    if not result.applied:
        raise CheckFailed(f"preflight: step {number} ({why}): gradient norm is {result.grad_norm}")
    costs = source.plan.steps[number]
    return TriedStep(
        why=why,
        step=number,
        tokens=int(costs["tokens"]),
        tiles=int(costs["tiles"]),
        seconds=max(world.gather(time.perf_counter() - began)),
        loss=loss_sum,
    )


def _without_pictures(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same text without its pictures: what a rank computes when its rows have none."""
    return {name: value for name, value in inputs.items() if name not in _PICTURES}


def _save_and_load(trial: Trial) -> tuple[int, float]:
    """Write a checkpoint, read its state back; return its bytes and the seconds that writing took."""
    source, engine, world = trial.source, trial.engine, trial.world
    checkpoints = Checkpoints(trial.folder / _ASIDE, world, plan=source.plan.manifest.as_parent(), limit=1)
    checkpoints.extras = source.extras
    checkpoints.keeps_average = trial.stage.ema_decay is not None
    try:
        began = time.perf_counter()
        path, _ = checkpoints.save(engine, TrainerState(step=1, proof=source.proof(1)), keep_in_history=False)
        seconds = time.perf_counter() - began
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        engine.load_state(state_reader(path), steps_taken=1)
        world.barrier()
    finally:
        if world.is_main:
            sweep(trial.folder)
    return size, max(world.gather(seconds))


def _count(groups: Sequence[ParameterGroup]) -> dict[str, int]:
    """Trained parameters by group, of this rank's share."""
    counts: dict[str, int] = {}
    for group in groups:
        counts[group.group] = counts.get(group.group, 0) + sum(math.prod(full_shape(p)) for p in group.parameters)
    return counts
