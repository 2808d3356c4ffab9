"""The training loop: batch → loss → backward → step → log → save. One story, read top to bottom.

All ranks run it in lockstep. What they must agree on (is the loss finite? is a stop wanted?) travels in one small
exchange per step, before the optimizer changes a weight.
"""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from owl3.errors import CheckFailed, Interrupted
from owl3.storage import write_atomic
from owl3.train.checkpoint import Checkpoints, Drop, TrainerState
from owl3.train.clock import StepClock
from owl3.train.distributed import World
from owl3.train.engine import Engine, StepResult, take_step
from owl3.train.flops import StepFlops
from owl3.train.metrics import SpikeDetector
from owl3.train.optim import ParameterGroup, rate_at
from owl3.train.stages import StageConfig
from owl3.train.steps import Fingerprint, Order, Row, Step, num_tokens, rows_of

logger = logging.getLogger(__name__)


@dataclass
class StageRun:
    """Everything a stage needs once it stands: made by `owl3.train.run`, or by a test."""

    stage: StageConfig
    total_steps: int
    seed: int
    engine: Engine
    groups: Sequence[ParameterGroup]
    world: World
    checkpoints: Checkpoints
    steps_from: Callable[[int], Iterator[Step]]
    order: Order
    folder: Path
    log: Callable[[Mapping[str, Any]], None] = lambda record: None
    on_checkpoint: Callable[[Path, int], None] = lambda path, step: None
    kept_checkpoints: Callable[[], Sequence[Path]] = tuple
    stop_wanted: Callable[[], bool] = lambda: False
    validate: Callable[[Callable[[Sequence[Row]], None]], Mapping[str, Any]] | None = None  # told how it gets on
    watch: Callable[[str, int, Sequence[Row]], None] = lambda phase, step, rows: None
    spikes: SpikeDetector | None = None
    flops: StepFlops | None = None


def train(run: StageRun, state: TrainerState) -> TrainerState:
    """Take the remaining steps of the stage.

    Args:
        run: See `StageRun`.
        state: Where to go on; its step number is all that the data order needs.

    Raises:
        CheckFailed: a loss or gradient is not finite; no rank has taken the step, and its samples are named.
        Interrupted: a stop was asked for, and a checkpoint saved; or a checkpoint could not be written.
    """
    engine, world, stage = run.engine, run.world, run.stage
    steps = run.steps_from(state.step)
    while state.step < run.total_steps:
        began = time.perf_counter()
        clock = StepClock(world.device)
        clock.begin("load")
        run.watch("load", state.step, ())
        step = next(steps)
        assert step.index == state.step, f"the loader gave step {step.index} when {state.step} was due"
        rows = [row for batch in step.micro_batches for row in rows_of(batch)]

        losses = _gradients(run, step, clock)
        clock.begin("exchange")
        run.watch("exchange", step.index, rows)
        total = _exchange(run, step, losses)
        if total.fingerprint != run.order.fingerprint(step.index):
            raise CheckFailed(f"{run.folder}: step {step.index} held other samples than the plan says; plan again")
        if not math.isfinite(total.loss):
            raise _not_finite(run, step, losses, f"loss is {total.loss}")
        rates = [rate_at(step.index, run.total_steps, stage, group.rate) for group in run.groups]
        clock.begin("optimizer")
        result = take_step(engine, rates, partial(_recompute, run, step, clock))
        clock.end()
        if not result.applied:
            raise _not_finite(run, step, losses, f"gradient norm is {result.grad_norm}")
        if result.redone and world.is_main:
            logger.warning("step %d: its gradients overflowed fp16; %s", step.index, _told(result))

        state = _after(run, state, step, total)
        seconds = time.perf_counter() - began
        is_last = state.step == run.total_steps
        validated = _validate(run, state.step)
        if state.step % stage.log_steps == 0 or is_last or validated:
            record = _record(run, state, step, total, result, rates=rates, seconds=seconds, phases=clock.seconds())
            run.log({**record, **validated})
        _note_spike(run, step, losses, total.loss, result.grad_norm)

        is_due = state.step % stage.save_steps == 0 or is_last
        if run.checkpoints.is_writing and (total.written or is_due or total.stop_wanted):
            run.watch("save", step.index, rows)
            state = _finish_checkpoint(run, state)  # the one before, written beside these steps
        if is_due or total.stop_wanted:
            run.watch("save", step.index, rows)
            beside = stage.save_async and not (is_last or total.stop_wanted)
            run.checkpoints.begin(engine, state, keep_in_history=is_due, aside_of_training=beside)
            state = state if beside else _finish_checkpoint(run, state)
        if total.stop_wanted and not is_last:
            raise Interrupted(f"{run.folder}: stopped after step {state.step}, saved; run again to resume")
    return state


def _gradients(run: StageRun, step: Step, clock: StepClock) -> list[Tensor]:
    """Forward and backward through this rank's share; returns the loss of each micro-batch."""
    _seed(run.seed, step.index, run.world.data_rank)
    losses = []
    for number, batch in enumerate(step.micro_batches, start=1):
        run.watch("compute", step.index, rows_of(batch))
        clock.begin("forward")
        inputs = batch.to(run.world.device, run.engine.dtype)
        loss = run.engine.forward(inputs, step.trained_tokens, last=number == len(step.micro_batches))
        clock.begin("backward")
        run.engine.backward(loss)
        losses.append(loss.detach())
    return losses


def _recompute(run: StageRun, step: Step, clock: StepClock) -> None:
    _gradients(run, step, clock)
    clock.begin("optimizer")


def _told(result: StepResult) -> str:
    times = "once more" if result.redone == 1 else f"{result.redone} times more"
    return f"computed {times}, the last time with a loss scale of {result.loss_scale:g}"


def _finish_checkpoint(run: StageRun, state: TrainerState) -> TrainerState:
    """Wait for the checkpoint that was begun, tell of it, and make room. Collective."""
    path, saved = run.checkpoints.finish()
    if saved.step % run.stage.save_steps == 0 or saved.step == run.total_steps:
        state = state.with_saved(saved)
        run.on_checkpoint(path, saved.step)
    run.checkpoints.prune(keep=run.kept_checkpoints() if run.world.is_main else ())
    return state


def _validate(run: StageRun, step: int) -> Mapping[str, Any]:
    """Validation losses, when it is time for them."""
    settings = run.stage.validation
    if run.validate is None or settings is None or (step % settings.eval_steps and step < run.total_steps):
        return {}
    return run.validate(partial(run.watch, "validate", step - 1))


@dataclass(frozen=True)
class _Total:
    """One step, added up over ranks. The same on every rank."""

    loss: float
    tokens: int
    images: int
    drops: tuple[Drop, ...]
    fingerprint: Fingerprint
    stop_wanted: bool
    written: bool  # every rank has written its part of the checkpoint that was begun


def _exchange(run: StageRun, step: Step, losses: Sequence[Tensor]) -> _Total:
    """Tell all ranks what this one did, and learn what the others did.

    Tensor-parallel peers did the same rows, so only the first of them speaks.
    """
    speaks = run.world.rank % run.world.tensor_parallel == 0
    mine = {
        "loss": math.fsum(float(loss) for loss in losses),
        "tokens": sum(num_tokens(batch) for batch in step.micro_batches),
        "images": sum(batch.images for batch in step.micro_batches),
        "drops": [Drop(step=step.index, sample_id=drop.sample_id, reason=drop.reason) for drop in step.drops],
        "fingerprint": [int(word) for word in step.fingerprint],
        "index": step.index,
        "speaks": speaks,
        "stop": run.stop_wanted(),
        "written": run.checkpoints.is_written,
    }
    everyone: list[dict[str, Any]] = run.world.gather(mine)
    assert {entry["index"] for entry in everyone} == {step.index}, "ranks are at different steps"
    speakers = [entry for entry in everyone if entry["speaks"]]
    return _Total(
        loss=math.fsum(entry["loss"] for entry in speakers),
        tokens=sum(entry["tokens"] for entry in speakers),
        images=sum(entry["images"] for entry in speakers),
        drops=tuple(sorted((d for entry in speakers for d in entry["drops"]), key=lambda d: d.sample_id)),
        fingerprint=(
            sum(entry["fingerprint"][0] for entry in speakers) % (1 << 64),
            sum(entry["fingerprint"][1] for entry in speakers) % (1 << 64),
        ),
        stop_wanted=any(entry["stop"] for entry in everyone),
        written=all(entry["written"] for entry in everyone),
    )


def _after(run: StageRun, state: TrainerState, step: Step, total: _Total) -> TrainerState:
    return state.model_copy(
        update={
            "step": step.index + 1,
            "samples": state.samples + run.order.samples_per_step,
            "tokens": state.tokens + total.tokens,
            "trained_tokens": state.trained_tokens + step.trained_tokens,
            "images": state.images + total.images,
            "loss": total.loss,
            "proof": run.order.proof(step.index + 1),
            "drops": state.drops + total.drops,  # no copy where nothing was dropped
        }
    )


def _record(
    run: StageRun,
    state: TrainerState,
    step: Step,
    total: _Total,
    result: StepResult,
    *,
    rates: Sequence[float],
    seconds: float,
    phases: Mapping[str, float],
) -> dict[str, Any]:
    scaled = {"loss_scale": result.loss_scale, "redone": result.redone} if result.loss_scale else {}
    return {
        "step": state.step,
        "loss": total.loss,
        "grad_norm": result.grad_norm,
        **scaled,
        "learning_rate": {group.group: rate for group, rate in zip(run.groups, rates, strict=True)},
        "samples": run.order.samples_per_step,
        "tokens": total.tokens,
        "trained_tokens": step.trained_tokens,
        "images": total.images,
        "dropped": len(total.drops),
        "seconds": seconds,
        "phase_seconds": phases,
        "data_wait": phases["load"] / seconds,
        "tokens_per_s": total.tokens / seconds,
        "images_per_s": total.images / seconds,
        "mfu": run.flops.utilisation(total.tokens, total.images, seconds) if run.flops else None,
        "memory_bytes": memory_bytes(run.world.device),
    }


def memory_bytes(device: torch.device) -> int:
    """Peak of this process: device memory on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _seed(seed: int, step: int, data_rank: int) -> None:
    """Make every random choice of a step a function of its number, so that no random state needs saving."""
    digest = hashlib.sha256(f"{seed} {step} {data_rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:7]))


def _describe_step(run: StageRun, step: Step, losses: Sequence[Tensor]) -> list[dict[str, Any]]:
    """What every rank had in the step, with the loss of each micro-batch. All ranks call it."""
    mine = {
        "rank": run.world.rank,
        "micro_batches": [
            {"loss": repr(float(loss)), "rows": [{"row": n, "samples": list(ids)} for n, ids in rows_of(batch)]}
            for batch, loss in zip(step.micro_batches, losses, strict=True)
        ],
    }
    return run.world.gather(mine)


def _write_incident(run: StageRun, kind: str, step: Step, losses: Sequence[Tensor], why: str) -> Path:
    path = run.folder / "incidents" / f"{kind}-{step.index:06d}.json"
    ranks = _describe_step(run, step, losses)
    if run.world.is_main:
        content = {"kind": kind, "step": step.index, "why": why, "ranks": ranks}
        write_atomic(path, json.dumps(content, indent=1).encode())
    return path


def _not_finite(run: StageRun, step: Step, losses: Sequence[Tensor], why: str) -> CheckFailed:
    """Write down which samples the step held, and say so. All ranks call it, and no rank has taken the step."""
    if run.checkpoints.is_writing:
        run.checkpoints.finish()
    path = _write_incident(run, "nonfinite", step, losses, why)
    bad = [n for n, loss in enumerate(losses) if not math.isfinite(float(loss))]
    suspects = [sid for n in bad or range(len(losses)) for _, ids in rows_of(step.micro_batches[n]) for sid in ids]
    told = run.world.gather((bool(bad), suspects))
    is_loss = any(has_bad for has_bad, _ in told)  # else the gradient alone: every sample of the step is suspect
    named = sorted({sample_id for has_bad, ids in told if has_bad or not is_loss for sample_id in ids})
    shown = ", ".join(named[:8]) + (f" and {len(named) - 8} more" if len(named) > 8 else "")
    narrow = ". Where they are sound, fp16 is too narrow (it ends at 65,504): train in bf16 or fp32"
    return CheckFailed(
        f"{run.folder}: step {step.index}: {why}; no rank took the step. Samples: {shown} (all ranks': {path}). "
        "Look at them with owl3 trace, take them out with owl3 train --quarantine ID, or resume to try again"
        + (narrow if run.stage.precision == "fp16" else "")
    )


def _note_spike(run: StageRun, step: Step, losses: Sequence[Tensor], loss: float, grad_norm: float) -> None:
    """Log a loss that stands out, with its samples. Every rank sees the same loss, so all of them come here or none."""
    z_score = run.spikes.z_score(loss) if run.spikes else None
    if z_score is not None:
        why = f"loss {loss:.4f} is {z_score:.1f} standard deviations above its window (gradient norm {grad_norm:.3f})"
        path = _write_incident(run, "spike", step, losses, why)
        if run.world.is_main:
            logger.warning("step %d: %s; its samples: %s", step.index, why, path)
