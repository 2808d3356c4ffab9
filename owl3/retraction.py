"""Carrying a retraction out: which stage goes on from which clean checkpoint, and a new run that does so.

    owl3 retract … --yes --purge --rerun demo=demo-2   tombstones, artifacts without it, plans of `demo-2`
    owl3 train RECIPE name=demo-2                      trains what is tainted, and nothing else
    owl3 retract --remove-run demo --reason …          the old weights go, once the new ones are there

A new plan equals the old one before the first tainted step, because a retracted sample is passed over when its turn
comes. That is not assumed but checked: a checkpoint is adopted by the new run only when both plans have the same digest
over all sample ids up to its step.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owl3.cards import runs
from owl3.cards.trace import PlanHit
from owl3.config import validate
from owl3.data.plan import PlanConfig, make_plan
from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, Manifest, Parent, now, read_manifest, write_manifest
from owl3.planfile import Plan
from owl3.progress import SILENT, Progress
from owl3.storage import link, write_atomic


@dataclass(frozen=True, slots=True)
class StageRerun:
    """What is to be trained again in one stage.

    Attributes:
        first_tainted: First step of its own plan that held a retracted sample; None when only the stage before did.
        resume_from: Steps that stay: 0 is the stage's own start, all steps mean that nothing is trained again.
        hours: At the pace of the last run, where its metrics tell.
    """

    run: str
    stage: str
    num_steps: int
    first_tainted: int | None
    resume_from: int
    hours: float | None

    @property
    def steps_to_train(self) -> int:
        """Steps that have to be taken again."""
        return self.num_steps - self.resume_from


def plan_rerun(workspace: Path, hits: Sequence[PlanHit]) -> list[StageRerun]:
    """Say for every tainted run which stages go on from where: the cheapest way to clean weights."""
    steps = {hit.plan: hit.steps for hit in hits}
    tainted = runs.tainted(workspace, steps)
    names = {hit.checkpoint.run.split("/")[0] for hit in tainted}
    made: list[StageRerun] = []
    for run in sorted((r for r in runs.iter_runs(workspace) if r.name.split("/")[0] in names), key=_depth(workspace)):
        own = steps.get(run.name, ())
        first = next((step for step in own if step < run.steps), None)
        clean = {c.step for c in run.checkpoints} - {
            hit.checkpoint.step for hit in tainted if hit.checkpoint.run == run.name
        }
        usable = [c.step for c in run.checkpoints if c.step in clean and (c.on_disk or c.step == run.steps)]
        resume = max(usable, default=0)
        name, stage = run.name.split("/")
        made.append(StageRerun(name, stage, run.steps, first, resume, _hours(run, run.steps - resume)))
    return made


def _hours(run: runs.Run, steps: int) -> float | None:
    seconds = [float(row["seconds"]) for row in runs.read_metrics(run.folder / "metrics.jsonl") if row.get("seconds")]
    return round(sum(seconds) / len(seconds) * steps / 3600, 4) if seconds else None


def prepare_rerun(workspace: Path, run: str, new_run: str, *, progress: Progress = SILENT) -> list[StageRerun]:
    """Plan a run anew over the purged samples and hand it every checkpoint that is clean.

    Returns:
        What is left to train, stage by stage. `owl3 train RECIPE name=NEW_RUN` does it.

    Raises:
        InputError: there is no such run, or the new name is taken by another one.
    """
    stages = sorted((r for r in runs.iter_runs(workspace) if r.name.split("/")[0] == run), key=_depth(workspace))
    if not stages:
        raise InputError(f"{workspace / 'runs' / run}: no such run; runs: {', '.join(_run_names(workspace)) or 'none'}")
    adopted: dict[str, Manifest | None] = {}
    left = []
    for stage in stages:
        name = stage.name.split("/")[1]
        old = Plan.open(workspace / "plans" / stage.name)
        config = validate(old.manifest.recipe, PlanConfig, f"plan {stage.name}")
        manifest = make_plan(config, workspace, run_name=new_run, stage=name, progress=progress)
        new = Plan.open(workspace / "plans" / new_run / name)
        parent = adopted.get(stage.parent) if stage.parent else None
        from_clean_parent = stage.parent is None or parent is not None
        step = _adoptable(stage, old, new) if from_clean_parent else 0
        whole = step == stage.steps == new.num_steps and stage.manifest is not None
        target = workspace / "runs" / new_run / name
        adopted[stage.name] = None
        if whole:
            adopted[stage.name] = _adopt_stage(stage, target, manifest, parent)
        elif step:
            _adopt_checkpoint(stage, step, target, manifest)
        first = old.parting_step(new)
        left.append(StageRerun(new_run, name, new.num_steps, first, step, _hours(stage, new.num_steps - step)))
    return left


def _depth(workspace: Path) -> Any:
    def key(run: runs.Run) -> tuple[int, str]:
        depth, parent = 0, run.parent
        while parent is not None:
            found = runs.read_run(workspace, workspace / "runs" / parent)
            depth, parent = depth + 1, found.parent if found else None
        return depth, run.name

    return key


def _run_names(workspace: Path) -> list[str]:
    return sorted({run.name.split("/")[0] for run in runs.iter_runs(workspace)})


def _adoptable(run: runs.Run, old: Plan, new: Plan) -> int:
    """The last checkpoint whose samples, in order, are the same in both plans; 0 when there is none."""
    on_disk = [c.step for c in run.checkpoints if c.on_disk or (c.step == run.steps and run.manifest is not None)]
    same = [step for step in on_disk if step <= new.num_steps and old.prefix_digest(step) == new.prefix_digest(step)]
    return max(same, default=0)


def _adopt_stage(run: runs.Run, target: Path, plan: Manifest, parent: Manifest | None) -> Manifest:
    """Give a whole, clean stage to the new run: same weights, new plan and parent in its manifest."""
    if (target / MANIFEST_NAME).is_file():
        return read_manifest(target)
    assert run.manifest is not None
    aside = target.with_name(f".{target.name}.adopting")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(run.folder, aside, copy_function=link, ignore=shutil.ignore_patterns(".lock", MANIFEST_NAME))
    for checkpoint in run.checkpoints:
        if checkpoint.on_disk:
            _reseal_checkpoint(aside / "checkpoints" / f"step-{checkpoint.step:06d}", run, checkpoint.step, plan)
    for path in run.folder.glob(f"evals/*/*/{MANIFEST_NAME}"):
        shutil.copy2(path, aside / path.relative_to(run.folder))
    old = run.manifest
    parents = [Parent(kind="plan", name=plan.name, digest=plan.digest)]
    parents += [parent.as_parent()] if parent is not None else []
    manifest = write_manifest(
        aside,
        kind="run",
        name=plan.name,
        counts=old.counts,
        recipe=old.recipe,
        parents=parents,
        stats=old.stats | {"adopted_from": old.digest},
        tools=old.tools,
        volatile=[entry.path for entry in old.files if entry.volatile],
        exclude=["checkpoints/*", "checkpoints/**", "evals/*", "evals/**", "trackers/*"],
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    aside.replace(target)
    return manifest


def _adopt_checkpoint(run: runs.Run, step: int, target: Path, plan: Manifest) -> None:
    """Give one clean checkpoint to the new run, which goes on from it."""
    name = f"step-{step:06d}"
    final = target / "checkpoints" / name
    if (final / MANIFEST_NAME).is_file():
        return
    aside = final.with_name(f".{name}.adopting")
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(
        run.folder / "checkpoints" / name, aside, copy_function=link, ignore=shutil.ignore_patterns(MANIFEST_NAME)
    )
    if (run.folder / "run.json").is_file():
        write_atomic(target / "run.json", (run.folder / "run.json").read_bytes())
    shutil.copy2(run.folder / "checkpoints" / name / MANIFEST_NAME, aside / MANIFEST_NAME)
    _reseal_checkpoint(aside, run, step, plan)
    final.parent.mkdir(parents=True, exist_ok=True)
    aside.replace(final)


def _reseal_checkpoint(folder: Path, run: runs.Run, step: int, plan: Manifest) -> None:
    """Make a checkpoint a child of the new plan.

    Its proof of the samples it saw holds for both plans, as `_adoptable` checked; training checks it once more.
    """
    old = read_manifest(run.folder / "checkpoints" / f"step-{step:06d}")
    (folder / MANIFEST_NAME).unlink(missing_ok=True)
    write_manifest(
        folder,
        kind="checkpoint",
        name=f"{plan.name}/step-{step:06d}",
        counts=old.counts,
        recipe=old.recipe,
        parents=[plan],
        stats=old.stats | {"adopted_from": old.digest},
        tools=old.tools,
    )


def remove_run(workspace: Path, run: str, reason: str) -> list[str]:
    """Delete a run's weights, scores and plans, and note that and why it is gone.

    Raises:
        InputError: there is no such run, or no reason was given.
    """
    stages = [stage for stage in runs.iter_runs(workspace) if stage.name.split("/")[0] == run]
    if not stages:
        raise InputError(f"{workspace / 'runs' / run}: no such run; runs: {', '.join(_run_names(workspace)) or 'none'}")
    if not reason.strip():
        raise InputError("removing a run says why: give --reason")
    note = {
        "run": run,
        "removed": now(),
        "reason": reason,
        "stages": {stage.name: stage.manifest.digest if stage.manifest else None for stage in stages},
        "weights": {c.label: c.weights for stage in stages for c in stage.checkpoints},
    }
    write_atomic(workspace / "retired" / "runs" / f"{run}.json", json.dumps(note, indent=1).encode() + b"\n")
    for folder in (workspace / "runs" / run, workspace / "plans" / run):
        shutil.rmtree(folder, ignore_errors=True)
    return [stage.name for stage in stages]
