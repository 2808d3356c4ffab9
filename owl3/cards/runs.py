"""What the ledger needs to know of runs: how far they went, which checkpoints they had, and what was scored.

runs/NAME/STAGE/
    manifest.json                parents: the plan, and the run whose export it started from
    proof.json                   every scheduled checkpoint: step, digest of weights
    checkpoints/step-000100/     those still on disk; trainer.json holds the history of a run that is under way
    drops.parquet                samples of the plan that were not trained on
    evals/CHECKPOINT/TASK-KEY/   summary.json, manifest.json
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, Manifest, read_manifest
from owl3.storage import read_json

CHECKPOINT_PATTERN = re.compile(r"([^/@]+)/([^/@]+?)(?:/checkpoints)?(?:[/@](?:step-)?(\d+|end))/?(?:model/?)?$")
"""RUN/STAGE@100, RUN/STAGE/checkpoints/step-000100, RUN/STAGE@end."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights after `step` steps of a stage; they may be on disk or not any more."""

    run: str
    step: int
    weights: str
    on_disk: bool

    @property
    def label(self) -> str:
        """RUN/STAGE/step-000100."""
        return f"{self.run}/step-{self.step:06d}"


@dataclass(frozen=True, slots=True)
class Tainted:
    """A checkpoint that learned from a sample.

    Attributes:
        first_step: First and
        last_step: last step of its own stage, before the checkpoint, that held it; None when only inherited.
        inherited_from: The stage through which it came, when its own did not show it.
    """

    checkpoint: Checkpoint
    first_step: int | None
    last_step: int | None
    num_steps: int
    inherited_from: str = ""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished result of a checkpoint."""

    run: str
    checkpoint: str
    title: str
    blind: bool
    primary: str
    score: float | None
    num_questions: int
    folder: Path
    interval: tuple[float, float] | None = None
    """95 % interval of the score."""
    paper: tuple[tuple[str, float], ...] = ()
    """What the paper reports for this figure, by model."""
    random: float | None = None
    """What guessing would reach."""


@dataclass(frozen=True, slots=True)
class Run:
    """A stage that was trained, or is being trained."""

    name: str
    folder: Path
    steps: int
    checkpoints: tuple[Checkpoint, ...]
    parent: str | None
    manifest: Manifest | None


def iter_runs(workspace: Path) -> list[Run]:
    """Every stage of every run with at least one checkpoint: by run, and in it in the order of training."""
    folders = sorted(path for path in workspace.glob("runs/*/*") if path.is_dir())
    found = {run.name: run for folder in folders if (run := read_run(workspace, folder)) is not None}

    def depth(run: Run) -> int:
        before = found.get(run.parent or "")
        return 0 if before is None else 1 + depth(before)

    return sorted(found.values(), key=lambda run: (run.name.split("/")[0], depth(run), run.name))


def read_run(workspace: Path, folder: Path) -> Run | None:
    """Read one stage; None when nothing was trained there yet."""
    name = "/".join(folder.parts[-2:])
    manifest = read_manifest(folder) if (folder / MANIFEST_NAME).is_file() else None
    on_disk = {
        int(path.parent.name.removeprefix("step-")): path.parent
        for path in sorted(folder.glob("checkpoints/step-*/manifest.json"))
        if re.fullmatch(r"step-\d+", path.parent.name)
    }
    history: dict[int, str] = {}
    if manifest is not None and (folder / "proof.json").is_file():
        history = {int(c["step"]): str(c["weights"]) for c in read_json(folder / "proof.json")["checkpoints"]}
    elif on_disk:
        state = read_json(on_disk[max(on_disk)] / "trainer.json")
        history = _history(state.get("history", []))
    for step in on_disk:
        history.setdefault(step, "")
    if manifest is None and not history:
        return None
    steps = int(manifest.stats.get("steps", 0)) if manifest is not None else max(history)
    checkpoints = tuple(Checkpoint(name, step, history[step], step in on_disk) for step in sorted(history))
    return Run(name, folder, steps, checkpoints, _parent(folder, manifest), manifest)


def _history(saved: Iterable[Mapping[str, Any]]) -> dict[int, str]:
    """Step → digest of the weights."""
    return {int(entry["step"]): str(entry["weights"]) for entry in saved}


def _parent(folder: Path, manifest: Manifest | None) -> str | None:
    """The run whose export this one started from: by the manifest, or (under way) by the recipe in run.json."""
    if manifest is not None:
        return next((parent.name for parent in manifest.parents if parent.kind == "run"), None)
    if not (folder / "run.json").is_file():
        return None
    stage = read_json(folder / "run.json").get("stage", {}).get("parent")
    return f"{folder.parts[-2]}/{stage}" if stage else None


def tainted(workspace: Path, plan_steps: Mapping[str, Sequence[int]]) -> list[Tainted]:
    """Checkpoints that learned from any of the steps (by plan name), or started from one that did."""
    by_name = {run.name: run for run in iter_runs(workspace)}
    memory: dict[str, bool] = {}

    def export_is_tainted(name: str) -> bool:
        if name not in memory:
            memory[name] = False  # a cycle can not be, and must not hang
            run = by_name.get(name)
            if run is not None:
                own = any(step < run.steps for step in plan_steps.get(name, ()))
                memory[name] = own or (run.parent is not None and export_is_tainted(run.parent))
        return memory[name]

    found = []
    for run in by_name.values():
        inherited = run.parent if run.parent is not None and export_is_tainted(run.parent) else ""
        for checkpoint in run.checkpoints:
            steps = [step for step in plan_steps.get(run.name, ()) if step < checkpoint.step]
            if steps or inherited:
                found.append(
                    Tainted(
                        checkpoint, steps[0] if steps else None, steps[-1] if steps else None, len(steps), inherited
                    )
                )
    return found


def evaluations(workspace: Path, hits: Iterable[Tainted]) -> list[Evaluation]:
    """Finished results of tainted checkpoints."""
    wanted = list(dict.fromkeys((hit.checkpoint.run, hit.checkpoint.step) for hit in hits))
    return [
        result
        for name in dict.fromkeys(run for run, _ in wanted)
        for result in all_evaluations(workspace / "runs" / name)
        if (result.run, _step_of(result, workspace)) in wanted
    ]


def all_evaluations(folder: Path) -> list[Evaluation]:
    """Finished results of one stage, by checkpoint (the end last) and title."""
    found = []
    for path in sorted(folder.glob("evals/*/*/summary.json"), key=lambda path: (path.parts[-3] == "end", path)):
        if not (path.parent / MANIFEST_NAME).is_file():
            continue
        summary = read_json(path)
        settings = read_manifest(path.parent).recipe
        interval = summary.get("interval_95")
        found.append(
            Evaluation(
                run="/".join(folder.parts[-2:]),
                checkpoint=path.parent.parent.name,
                title=str(settings.get("title", summary["task"])),
                blind=bool(settings.get("blind", False)),
                primary=str(summary["primary"]),
                score=summary["figures"].get(summary["primary"]),
                num_questions=int(summary["num_questions"]),
                folder=path.parent,
                interval=(interval["low"], interval["high"]) if interval else None,
                paper=tuple(summary.get("paper", {}).items()),
                random=summary.get("floors", {}).get("random"),
            )
        )
    return found


def _step_of(result: Evaluation, workspace: Path) -> int:
    if result.checkpoint == "end":
        run = read_run(workspace, workspace / "runs" / result.run)
        return run.steps if run else -1
    return int(result.checkpoint.removeprefix("step-"))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Whole records of a metrics file; a last line that a kill cut off is left out.

    Raises:
        InputError: it is something else.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("}\n")]
    except ValueError as error:
        raise InputError(f"{path}: not a metrics file, so it was damaged ({error}); bring it back") from error


def find_checkpoint(workspace: Path, text: str) -> tuple[Run, int]:
    """The run and number of steps that a person means by RUN/STAGE@STEP or a checkpoint's path.

    Raises:
        InputError: naming the checkpoints there are.
    """
    match = CHECKPOINT_PATTERN.search(text)
    if match is None:
        raise InputError(f"{text!r}: write a checkpoint as RUN/STAGE@STEP or by its path")
    name = f"{match[1]}/{match[2]}"
    run = read_run(workspace, workspace / "runs" / name)
    if run is None:
        names = ", ".join(found.name for found in iter_runs(workspace)) or "none"
        raise InputError(f"{text!r}: no run {name} in {workspace} (runs: {names})")
    step = run.steps if match[3] == "end" else int(match[3])
    if step > run.steps:
        raise InputError(f"{text!r}: {name} has {run.steps} steps")
    return run, step


def cards_about(datacards_dir: Path | None, artifacts: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    """Rendered cards with any of these artifacts among their parents."""
    if datacards_dir is None or not datacards_dir.is_dir():
        return []
    found = []
    for path in sorted(datacards_dir.glob("*/*/manifest.json")):
        manifest = read_manifest(path.parent)
        if manifest.kind == "card" and any((p.kind, p.name) in artifacts for p in manifest.parents):
            found.append({"name": manifest.name, "digest": manifest.digest, "folder": str(path.parent)})
    return found


def as_data(value: Any) -> Any:
    """Dataclasses and paths of this module as JSON's own types."""
    from dataclasses import asdict, is_dataclass

    if is_dataclass(value) and not isinstance(value, type):
        return {key: as_data(entry) for key, entry in asdict(value).items()}
    if isinstance(value, dict):
        return {key: as_data(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_data(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
