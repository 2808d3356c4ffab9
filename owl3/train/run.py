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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock, Timeout

from owl3.config import canonical_json, plain
from owl3.errors import ConfigError, InputError
from owl3.manifest import (
    Counts,
    Manifest,
    find_current,
    lock_path,
    read_manifest,
    tool_versions,
    write_manifest,
)
from owl3.storage import atomic_writer, partial_path, write_atomic
from owl3.train import distributed
from owl3.train.build import Start, make_model, step_source
from owl3.train.checkpoint import Checkpoints, TrainerState, state_reader
from owl3.train.distributed import World
from owl3.train.engine import make_engine
from owl3.train.export import digests_on_disk, verified_model, weights_digest
from owl3.train.loop import StageRun, train
from owl3.train.metrics import METRICS_NAME, MetricsFile, SpikeDetector, StatusLine
from owl3.train.optim import freeze, parameter_groups
from owl3.train.signals import StopSignal
from owl3.train.stages import StageConfig, TrainRecipe, plan_folder, stage_folder

logger = logging.getLogger(__name__)

_DROPS = pa.schema([("step", pa.int64()), ("sample_id", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class Where:
    """What depends on the machine, not on the recipe."""

    workspace: Path
    deepspeed_options: dict[str, Any]
    grace_s: float = 30.0
    timeout_s: float = 600.0


def run_stage(recipe: TrainRecipe, stage_name: str, where: Where) -> Manifest:
    """Train a stage, or what is left of it, and write its manifest; a finished one is left alone.

    Raises:
        ConfigError: the recipe does not fit the plan, the parent or the model.
        InputError: plan or parent are missing, damaged, or changed since they were made.
        StaleError: another recipe made what lies in the stage's folder.
        CheckFailed, Interrupted: see `owl3.train.loop.train`.
    """
    stage = recipe.stage(stage_name)
    folder = stage_folder(where.workspace, recipe.name, stage.name)
    start = find_start(recipe, stage, where.workspace)
    meaning = recipe.meaning(stage)
    _fix_arithmetic(stage)
    world = distributed.start(tensor_parallel=stage.tensor_parallel, timeout_s=where.timeout_s)
    try:
        _same_on_all_ranks(world, recipe, stage, start)
        with _only_run(folder, world):
            done = find_current(folder, meaning, start.parents)
            if done is not None:
                return done
            _same_run_as_before(folder, meaning, world)
            state = _train(recipe, stage, start, folder, where, world)
            world.barrier()
            if world.is_main:
                _finish(recipe, stage, start, folder, state, meaning, where)
            world.barrier()
            return read_manifest(folder)
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


def _train(
    recipe: TrainRecipe, stage: StageConfig, start: Start, folder: Path, where: Where, world: World
) -> TrainerState:
    """Take the steps that are left."""
    source = step_source(recipe, stage, start, where.workspace, world)
    checkpoints = Checkpoints(
        folder / "checkpoints", world, plan=start.plan.as_parent(), extras=source.extras, limit=stage.save_total_limit
    )
    found = checkpoints.latest()
    state = found[1] if found else TrainerState(plan=start.plan.digest)
    if state.plan != start.plan.digest:
        raise InputError(f"{checkpoints.folder}: was trained on another plan; give this run another name")
    if state.step == source.total_steps:
        return state
    if found:
        logger.warning("resuming %s after step %d of %d", stage.name, state.step, source.total_steps)

    model = make_model(recipe, stage, start, source, weights=found[0] / "model" if found else start.model_folder)
    freeze(model, stage.trainable)
    groups = parameter_groups(model, stage)
    engine = make_engine(model, groups, stage, world, where.deepspeed_options)
    if found:
        engine.load_state(state_reader(found[0]), state.step)
    with _Log(folder, world, stage, state.step, source.total_steps) as log, StopSignal(where.grace_s) as stop:
        run = StageRun(
            stage=stage,
            total_steps=source.total_steps,
            seed=recipe.seed,
            engine=engine,
            groups=groups,
            world=world,
            checkpoints=checkpoints,
            steps_from=source.steps_from,
            order=source,
            folder=folder,
            log=log,
            on_checkpoint=_evaluation_requests(recipe, folder, where.workspace, world, source.total_steps),
            stop_wanted=stop,
            spikes=SpikeDetector(stage.spikes),
        )
        return train(run, state)


def _finish(
    recipe: TrainRecipe,
    stage: StageConfig,
    start: Start,
    folder: Path,
    state: TrainerState,
    meaning: dict[str, Any],
    where: Where,
) -> None:
    """Export the last checkpoint's model and write down what the stage was. Rank 0 only; safe to repeat."""
    last = folder / "checkpoints" / f"step-{state.step:06d}" / "model"
    _link_folder(last, folder / "model")
    digest = weights_digest(digests_on_disk(folder / "model"))
    if digest != state.history[-1].weights:
        raise InputError(f"{folder / 'model'}: differs from the weights that were trained; remove {last.parent}")
    drops = [drop.model_dump() for drop in state.drops]
    with atomic_writer(folder / "drops.parquet") as handle:
        pq.write_table(pa.Table.from_pylist(drops, schema=_DROPS), handle)
    proof = {"steps": state.step, "proof": state.proof, "checkpoints": plain(list(state.history))}
    write_atomic(folder / "proof.json", json.dumps(proof, indent=1).encode())
    by_reason = {r: sum(d.reason == r for d in state.drops) for r in sorted({d.reason for d in state.drops})}
    config = _eval_config(recipe)
    if config is not None:
        from owl3.eval import queue

        queue.enqueue(folder, folder / "model", step=state.step, config=config, workspace=where.workspace, end=True)
    write_manifest(
        folder,
        kind="run",
        name=f"{recipe.name}/{stage.name}",
        counts=Counts(seen=state.samples, kept=state.samples - len(drops), dropped=by_reason),
        recipe=meaning,
        parents=start.parents,
        stats={
            "steps": state.step,
            "tokens": state.tokens,
            "trained_tokens": state.trained_tokens,
            "images": state.images,
            "loss": state.loss,
            "weights": digest,
            "proof": state.proof,
        },
        tools=tool_versions("torch", "transformers", *(["deepspeed"] if stage.engine == "deepspeed" else [])),
        volatile=[METRICS_NAME, "incidents/*", "*.log"],
        exclude=["checkpoints/*", "evals/*", "trackers/*"],
    )


def _evaluation_requests(
    recipe: TrainRecipe, folder: Path, workspace: Path, world: World, total_steps: int
) -> Callable[[Path, int], None]:
    """What happens at a checkpoint: rank 0 leaves an evaluation request. The last one is asked for by the export."""
    config = _eval_config(recipe)

    def ask(checkpoint: Path, step: int) -> None:
        if world.is_main and config is not None and step < total_steps:
            from owl3.eval import queue

            queue.enqueue(folder, checkpoint / "model", step=step, config=config, workspace=workspace)

    return ask


def _eval_config(recipe: TrainRecipe) -> Any:
    if not recipe.eval or not recipe.eval.get("tasks"):
        return None
    from owl3.eval.settings import EvalConfig

    return EvalConfig.model_validate(recipe.eval)


class _Log:
    """Rank 0's record keeping: metrics file and status line."""

    def __init__(self, folder: Path, world: World, stage: StageConfig, resume_step: int, total_steps: int) -> None:
        self._file = MetricsFile(folder / METRICS_NAME, resume_step) if world.is_main else None
        self._status = StatusLine(stage.name, total_steps)

    def __call__(self, record: Any) -> None:
        if self._file is not None:
            self._file.write(record)
            if "loss" in record:
                self._status.show(record)

    def __enter__(self) -> "_Log":
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()


def _fix_arithmetic(stage: StageConfig) -> None:
    """Make sums come out the same every time: a fixed number of threads, and deterministic kernels on the CPU."""
    torch.set_num_threads(stage.threads)
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)


def _same_on_all_ranks(world: World, recipe: TrainRecipe, stage: StageConfig, start: Start) -> None:
    """End before anything is touched when ranks were started with different recipes, plans or parents."""
    mine = canonical_json([recipe.name, recipe.seed, plain(stage), plain(recipe.model), plain(list(start.parents))])
    everyone = world.gather(mine)
    for rank, other in enumerate(everyone):
        if other != everyone[0]:
            raise ConfigError(f"rank {rank} has another recipe, plan or parent than rank 0; start all with the same")


def _only_run(folder: Path, world: World) -> Any:
    """Hold the stage's folder. The lock ends with the process, however that dies."""
    if not world.is_main:
        return _Nothing()
    lock = FileLock(lock_path(folder))
    try:
        return lock.acquire(blocking=False)
    except Timeout:
        raise ConfigError(f"{folder}: another run is at work in this folder; wait for it, or end it") from None


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def _same_run_as_before(folder: Path, meaning: dict[str, Any], world: World) -> None:
    """Refuse to continue a run under a recipe that would learn something else.

    Raises:
        ConfigError: naming the keys that differ.
    """
    path = folder / "run.json"
    if path.is_file():
        before = json.loads(path.read_bytes())
        changed = sorted(_differences(before, json.loads(canonical_json(meaning))))
        if changed:
            raise ConfigError(
                f"{path}: this run was begun with another recipe (differs in {', '.join(changed)}); "
                "undo that, give the run another name, or remove the folder"
            )
    elif world.is_main:
        write_atomic(path, json.dumps(plain(meaning), indent=1, sort_keys=True).encode())
    world.barrier()


def _differences(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _differences(one.get(key), other.get(key), f"{prefix}{key}.")
    elif one != other:
        yield prefix.rstrip(".")


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
