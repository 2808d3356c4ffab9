"""One stage from its recipe to its manifest: checks, model, engine, loop, export.

runs/NAME/STAGE/
    run.json              the resolved recipe of the stage
    metrics.jsonl         one record per step (holds times: not in the digest)
    checkpoints/          see owl3.train.checkpoint
    incidents/            spikes and non-finite steps, with their samples
    drops.parquet         samples of the plan that could not be trained on
    proof.json            hash chain of the order, and the weights' digest at every checkpoint
    model/                the verified export
    manifest.json         written last
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from owl3 import events
from owl3.config import plain, validate
from owl3.data.balance import idle_warning
from owl3.errors import InputError
from owl3.eval import queue
from owl3.eval.settings import EvalConfig
from owl3.manifest import (
    Manifest,
    find_current,
    read_manifest,
    tool_versions,
    write_manifest,
)
from owl3.storage import atomic_writer, partial_path, write_atomic
from owl3.tokens import TextTokenizer
from owl3.train import distributed
from owl3.train.assemble import Start, StepSource, load_tokenizer, make_model
from owl3.train.best import best_checkpoint
from owl3.train.checkpoint import Checkpoints, TrainerState, handed_over, state_reader
from owl3.train.claim import check_same_as_before, claimed
from owl3.train.distributed import World
from owl3.train.engine import Engine, make_engine
from owl3.train.export import digests_on_disk, verified_model, weights_digest
from owl3.train.flops import StepFlops
from owl3.train.loop import StageRun
from owl3.train.metrics import METRICS_NAME, MetricsFile, SpikeDetector, StatusLine
from owl3.train.optim import ParameterGroup, freeze, parameter_groups
from owl3.train.preflight import REPORT_NAME, Report, Trial, preflight, sweep
from owl3.train.signals import StopSignal
from owl3.train.stages import StageConfig, TrainRecipe, plan_folder, stage_folder
from owl3.train.steps import Row
from owl3.train.trackers import Trackers, make_trackers
from owl3.train.validation import validation_losses
from owl3.train.watch import left_by_others, train_watched

logger = logging.getLogger(__name__)

_DROPS = pa.schema([("step", pa.int64()), ("sample_id", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Where:
    """What depends on the machine, not on the recipe."""

    workspace: Path
    deepspeed_options: dict[str, Any]
    grace_s: float = 30.0
    timeout_s: float = 600.0
    report_to: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """One stage to be trained here."""

    recipe: TrainRecipe
    stage: StageConfig
    start: Start
    folder: Path
    where: Where
    world: World

    @property
    def meaning(self) -> dict[str, Any]:
        """What decides the weights: what the manifest and `run.json` hold of the recipe."""
        return self.recipe.meaning(self.stage)

    @property
    def task(self) -> list[Any]:
        """All that ranks have to agree on: the recipe, what the stage stands on, and how they talk."""
        recipe, options = self.recipe, self.where.deepspeed_options  # other bucket sizes: ranks wait for ever
        meaning = [recipe.name, recipe.seed, plain(self.stage), plain(recipe.model), plain(list(self.start.parents))]
        return [*meaning, plain(options)]


def run_stage(recipe: TrainRecipe, stage_name: str, where: Where) -> Manifest:
    """Train a stage, or what is left of it, and write its manifest; a finished one is left alone.

    Raises:
        ConfigError: the recipe does not fit the plan, the parent or the model.
        InputError: plan or parent are missing, damaged, or changed since they were made.
        StaleError: another recipe made what lies in the stage's folder.
        CheckFailed, Interrupted: see `owl3.train.loop.train`.
    """
    stage = recipe.stage(stage_name)
    start = find_start(recipe, stage, where.workspace)
    fix_arithmetic(stage)
    world = distributed.start(tensor_parallel=stage.tensor_parallel, timeout_s=where.timeout_s)
    job = Job(recipe, stage, start, stage_folder(where.workspace, recipe.name, stage.name), where, world)
    try:
        with left_by_others(world), claimed(job.folder, world, job.task):
            if world.is_main:
                sweep(job.folder)
            done = find_current(job.folder, job.meaning, start.parents)
            if done is not None:
                return done
            check_same_as_before(job.folder, world, job.meaning)
            state = _train(job)
            world.barrier()
            if world.is_main:
                _finish(job, state)
            world.barrier()
            return read_manifest(job.folder)
    finally:
        distributed.stop()


def find_start(recipe: TrainRecipe, stage: StageConfig, workspace: Path) -> Start:
    """Check everything that the stage stands on: its plan, and the export of the stage before it.

    Raises:
        InputError: naming what is missing or was changed.
    """
    folder = plan_folder(workspace, recipe.name, stage.name)
    if not folder.is_dir():
        raise InputError(f"{folder}: stage {stage.name!r} has no plan; run owl3 plan --stage {stage.name} first")
    plan = read_manifest(folder)
    if stage.parent is None:
        return Start(folder, plan, (plan.as_parent(),), None)
    model_folder, parent = verified_model(stage_folder(workspace, recipe.name, stage.parent))
    return Start(folder, plan, (plan.as_parent(), parent.as_parent()), model_folder)


def preflight_stage(recipe: TrainRecipe, stage_name: str, where: Where) -> Report:
    """Try a stage out before its GPUs are spent; see `owl3.train.preflight`. Raises as `run_stage` does."""
    stage = recipe.stage(stage_name)
    start = find_start(recipe, stage, where.workspace)
    fix_arithmetic(stage)
    world = distributed.start(tensor_parallel=stage.tensor_parallel, timeout_s=where.timeout_s)
    job = Job(recipe, stage, start, stage_folder(where.workspace, recipe.name, stage.name), where, world)
    try:
        with left_by_others(world), claimed(job.folder, world, job.task):
            tokenizer = load_tokenizer(recipe, where.workspace)
            source = StepSource(stage, start, where.workspace, world, tokenizer)
            engine, groups = _assemble(job, source, tokenizer, start.model_folder)
            trial = Trial(stage, source, engine, groups, world, job.folder, where.grace_s, where.timeout_s)
            return preflight(trial)
    finally:
        distributed.stop()


def _assemble(
    job: Job, source: StepSource, tokenizer: TextTokenizer, weights: Path | None
) -> tuple[Engine, list[ParameterGroup]]:
    """The model with its starting weights in its engine, and the steps made to fit it."""
    model = make_model(job.recipe, job.stage, tokenizer, weights)
    source.read_for(model.config)
    freeze(model, job.stage.trainable)
    groups = parameter_groups(model, job.stage)
    return make_engine(model, groups, job.stage, job.world, job.where.deepspeed_options), groups


def _train(job: Job) -> TrainerState:
    """Take the steps that are left."""
    stage, where, world = job.stage, job.where, job.world
    tokenizer = load_tokenizer(job.recipe, where.workspace)
    source = StepSource(stage, job.start, where.workspace, world, tokenizer)
    checkpoints = Checkpoints(
        job.folder / "checkpoints", world, plan=job.start.plan.as_parent(), limit=stage.save_total_limit
    )
    found = checkpoints.latest(source.follows)
    state = found[1] if found else TrainerState()
    if state.step == source.total_steps:
        return state
    if found:
        logger.warning("resuming %s after step %d of %d", stage.name, state.step, source.total_steps)
    idle = idle_warning(source.plan, world.data_size)
    if idle and world.is_main:
        logger.warning("%s", idle)

    # Adapters are merged in a checkpoint's model: with them a stage goes on from where it began, and from its state.
    goes_on_from = found[0] / "model" if found and stage.lora is None else job.start.model_folder
    engine, groups = _assemble(job, source, tokenizer, goes_on_from)
    checkpoints.extras = source.extras
    checkpoints.keeps_average = stage.ema_decay is not None
    ask = _evaluation_requests(job, source.total_steps)
    if found:
        engine.load_state(state_reader(found[0]), state.step)
        if state.step % stage.save_steps == 0:
            ask(found[0], state.step)  # the kill may have come between saving and asking; asking twice is asking once
    with _Log(job, state.step, source.total_steps) as log, StopSignal(where.grace_s) as stop:
        run = StageRun(
            stage=stage,
            total_steps=source.total_steps,
            seed=job.recipe.seed,
            engine=engine,
            groups=groups,
            world=world,
            checkpoints=checkpoints,
            steps_from=source.steps_from,
            order=source,
            folder=job.folder,
            log=log,
            on_checkpoint=ask,
            kept_checkpoints=_still_needed(job),
            stop_wanted=stop,
            validate=_validation(job, source, engine),
            spikes=SpikeDetector(stage.spikes),
            flops=StepFlops.of(source.config, stage, world),
        )
        return train_watched(run, state, where.timeout_s)


def _finish(job: Job, state: TrainerState) -> None:
    """Export the last checkpoint's model and write down what the stage was. Rank 0 only; safe to repeat."""
    recipe, stage, folder = job.recipe, job.stage, job.folder
    last = handed_over(folder / "checkpoints" / f"step-{state.step:06d}")
    _link_folder(last, folder / "model")
    digest = weights_digest(digests_on_disk(folder / "model"))
    if digest != state.history[-1].weights:
        raise InputError(f"{folder / 'model'}: differs from the weights that were trained; remove {last.parent}")
    drops = [drop.model_dump() for drop in state.drops]
    with atomic_writer(folder / "drops.parquet") as handle:
        pq.write_table(pa.Table.from_pylist(drops, schema=_DROPS), handle)
    assert state.proof is not None, "a plan has at least one step"
    proof = {"steps": state.step, "proof": plain(state.proof), "checkpoints": plain(list(state.history))}
    write_atomic(folder / "proof.json", json.dumps(proof, indent=1).encode())
    config = _eval_config(recipe)
    if config is not None:
        workspace = job.where.workspace
        queue.enqueue(folder, folder / "model", step=state.step, config=config, workspace=workspace, end=True)
    write_manifest(
        folder,
        kind="run",
        name=f"{recipe.name}/{stage.name}",
        counts=state.counts(),
        recipe=job.meaning,
        parents=job.start.parents,
        stats={
            "steps": state.step,
            "tokens": state.tokens,
            "trained_tokens": state.trained_tokens,
            "images": state.images,
            "loss": state.loss,
            "weights": digest,
            "proof": state.proof.digest,
        },
        tools=tool_versions("torch", "transformers", *(["deepspeed"] if stage.engine == "deepspeed" else [])),
        volatile=[METRICS_NAME, "incidents/*", "*.log"],
        exclude=["checkpoints/*", "evals/*", "trackers/*", "ranks/*", "held-out/*", REPORT_NAME],
    )


def _validation(
    job: Job, source: StepSource, engine: Engine
) -> Callable[[Callable[[Sequence[Row]], None]], Mapping[str, Any]] | None:
    """How to measure validation loss, where the stage asks for it."""
    if job.stage.validation is None:
        return None
    held_out = source.held_out(job.folder / "held-out", job.stage.validation.samples)
    return partial(validation_losses, engine, job.world, held_out)


def _evaluation_requests(job: Job, total_steps: int) -> Callable[[Path, int], None]:
    """What happens at a checkpoint: rank 0 leaves an evaluation request. The last one is asked for by the export."""
    config = _eval_config(job.recipe)

    def ask(checkpoint: Path, step: int) -> None:
        if job.world.is_main:
            _tell_of_checkpoint(job, checkpoint, step)
        if job.world.is_main and config is not None and step < total_steps:
            model = handed_over(checkpoint)
            queue.enqueue(job.folder, model, step=step, config=config, workspace=job.where.workspace)

    return ask


def _tell_of_checkpoint(job: Job, checkpoint: Path, step: int) -> None:
    """Let an automation start what waits for checkpoints; the request on disk is what counts."""
    workspace = job.where.workspace.resolve()
    labels = {
        "owl3.recipe": str(workspace / "runs" / job.recipe.name / "recipe.json"),
        "owl3.workspace": str(workspace),
    }
    events.emit(
        "owl3.checkpoint.saved",
        f"owl3.run.{job.recipe.name}.{job.stage.name}",
        labels=labels,
        payload={"step": step, "checkpoint": str(checkpoint.resolve())},
    )


def _still_needed(job: Job) -> Callable[[], Sequence[Path]]:
    """Checkpoints that outlive the limit: those an evaluation has still to read, and the best one so far."""

    def needed() -> list[Path]:
        kept = [(job.folder / request.model).parent for request in queue.pending(job.folder)]
        best = best_checkpoint(job.folder, job.stage.keep_best) if job.stage.keep_best else None
        return [*kept, best] if best else kept

    return needed


def _eval_config(recipe: TrainRecipe) -> EvalConfig | None:
    if not recipe.eval or not recipe.eval.get("tasks"):
        return None
    return validate(recipe.eval, EvalConfig, f"recipe {recipe.name}: eval")


class _Log:
    """Rank 0's record keeping: metrics file, status line and trackers."""

    def __init__(self, job: Job, resume_step: int, total_steps: int) -> None:
        self._file = MetricsFile(job.folder / METRICS_NAME, resume_step) if job.world.is_main else None
        names = job.where.report_to if job.world.is_main else ()
        self._trackers = Trackers(make_trackers(names, job.folder / "trackers", f"{job.recipe.name}/{job.stage.name}"))
        self._status = StatusLine(job.stage.name, total_steps)

    def __call__(self, record: Any) -> None:
        if self._file is not None:
            self._file.write(record)
            self._status.show(record)
            self._trackers.log(record)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()
        self._trackers.close()


def fix_arithmetic(stage: StageConfig) -> None:
    """Make sums come out the same every time: a fixed number of threads, and deterministic kernels on the CPU."""
    torch.set_num_threads(stage.threads)
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)


def _link_folder(source: Path, target: Path) -> None:
    """Make `target` hold the files of `source`, by hard links where the file system has them."""
    aside = partial_path(target)
    shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(target, ignore_errors=True)
    try:
        shutil.copytree(source, aside, copy_function=os.link)
    except (OSError, shutil.Error):
        shutil.rmtree(aside, ignore_errors=True)
        shutil.copytree(source, aside)
    aside.replace(target)
