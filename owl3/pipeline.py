"""A recipe's whole chain, one small function per kind of step: from sources to an audited card.

`owl3 run`, `owl3 demo` and the Prefect flow call the same functions in the same order, so they leave the same bytes.
Each step finds out by itself whether it was done before. Training and evaluation are processes of their own; the
evaluation runs beside the training and follows it from checkpoint to checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from owl3 import launch
from owl3.build.run import build
from owl3.build.tokenizer import make_tokenizer
from owl3.cards.audit import audit
from owl3.cards.chain import FOLDERS
from owl3.cards.render import card
from owl3.config import plain
from owl3.curate.run import curate
from owl3.curate.sources.prepare import prepare
from owl3.data.plan import make_plan
from owl3.errors import CheckFailed, ConfigError
from owl3.eval import queue
from owl3.eval.hand_over import await_scores, check_gates
from owl3.manifest import MANIFEST_NAME, Counts, Manifest, read_manifest
from owl3.progress import SILENT, Progress
from owl3.recipe import Recipe
from owl3.storage import copy_exact, write_atomic
from owl3.train.command import TrainCommand
from owl3.train.metrics import METRICS_NAME, following
from owl3.train.stages import TrainRecipe, finished, stage_folder

logger = logging.getLogger(__name__)

DATACARDS = Path(__file__).parent.parent / "datacards"
"""Facts that people wrote about the shipped corpora."""

SCORES_TIMEOUT_S = 3600.0
"""A gate waits for the scores it judges no longer than this."""


@dataclass(frozen=True)
class Place:
    """Where a chain runs. Nothing here changes a digest.

    Attributes:
        workspace: Holds all artifacts.
        datacards: Where cards are rendered; facts that are missing there are copied from the shipped ones.
        resolve: Where some hosts really are, as `owl3.curate.run.curate` takes it.
        processes: Training processes per stage on this machine.
    """

    workspace: Path
    datacards: Path
    resolve: Mapping[str, str] = field(default_factory=dict)
    processes: int = 1

    @classmethod
    def at(cls, workspace: Path, resolve: Mapping[str, str]) -> Place:
        """A place that keeps everything, cards too, below one workspace."""
        return cls(workspace=workspace, datacards=workspace / "datacards", resolve=resolve)


@dataclass(frozen=True)
class Outcome:
    """What a step left behind, and whether it had been done before."""

    step: str
    artifact: str
    digest: str
    counts: Counts
    seconds: float
    was_done: bool


class StepFunction(Protocol):
    """One step: a recipe, the name of the section entry, and where to work."""

    def __call__(self, recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
        """Make the artifact, or find that it is done."""
        ...


def prepare_source(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Turn a corpus's metadata into a URL table."""
    return prepare(entry_named(recipe.sources, name), place.workspace, progress)


def curate_shards(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Fetch, check rights, filter and deduplicate a source into shards."""
    return curate(entry_named(recipe.curate, name), place.workspace, resolve=place.resolve, progress=progress)


def make_recipe_tokenizer(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Make or take over the tokenizer."""
    assert recipe.tokenizer is not None and recipe.tokenizer.name == name
    return make_tokenizer(recipe.tokenizer, place.workspace)


def build_samples(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Build one set of samples."""
    return build(entry_named(recipe.build, name), place.workspace, progress)


def plan_stage(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Fix the order of a stage's samples."""
    config = recipe.stage(name).data
    return make_plan(config, place.workspace, run_name=recipe.name, stage=name, progress=progress)


def train_stage(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Train a stage in processes of its own; a killed one goes on after its last checkpoint."""
    workspace = place.workspace
    train_recipe = TrainRecipe.model_validate(plain(recipe))
    done = finished(train_recipe, train_recipe.stage(name), workspace)
    if done is not None:
        return done
    check_hand_over(recipe, name, workspace)
    folder = stage_folder(workspace, recipe.name, name)
    progress.start(f"train {name}", recipe.stage(name).data.steps)
    command = TrainCommand(write_resolved(recipe, workspace), name, workspace, processes=place.processes)
    module, arguments = command.on_this_machine()
    with following(folder / METRICS_NAME, progress):
        launch.run_module(module, arguments, log=workspace / "logs" / f"train-{recipe.name}-{name}.log")
    manifest = read_manifest(folder)
    progress.finish(f"{manifest.stats['steps']} steps, loss {manifest.stats['loss']:.3f}")
    return manifest


def check_hand_over(recipe: Recipe, name: str, workspace: Path) -> None:
    """Hold a stage back until the scores of its parent are there and pass the recipe's gates.

    Raises:
        CheckFailed: a gate failed, or an evaluation did. InputError: nobody made the scores in time.
    """
    parent = recipe.stage(name).parent
    if parent is None or recipe.eval is None or not recipe.eval.gates:
        return
    before = recipe.stage(parent).parent
    parent_folder = stage_folder(workspace, recipe.name, parent)
    await_scores(parent_folder, SCORES_TIMEOUT_S, recipe.eval.max_error_fraction)
    check_gates(recipe.eval.gates, parent_folder, stage_folder(workspace, recipe.name, before) if before else None)


def render_card(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Render the recipe's datacard."""
    assert recipe.card is not None
    facts = place.datacards / name / "facts.yaml"
    shipped = DATACARDS / name / "facts.yaml"
    if not facts.is_file() and shipped.is_file():
        copy_exact(shipped, facts)
    return card(recipe.card, place.workspace, place.datacards, progress=progress)


def audit_card(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """Derive every figure of the card again from the shards.

    Raises:
        CheckFailed: a figure or a digest is false.
    """
    assert recipe.card is not None
    folder = place.datacards / name / recipe.card.version
    progress.start(f"audit {name}")
    found = audit(folder, place.workspace, progress=SILENT)
    false = found.first_false()
    if false is not None:
        raise CheckFailed(f"audit of {folder}: {false.line(most=80)}; see owl3 audit {folder} -w {place.workspace}")
    progress.finish(f"{len(found.checks)} checks, all true")
    return read_manifest(folder)


@contextmanager
def evaluating(
    recipe: Recipe, place: Place, progress: Progress = SILENT, only: Collection[str] | None = None
) -> Iterator[None]:
    """Evaluate every checkpoint while the block trains, and wait for the last score at its end.

    Args:
        only: The stages that the block trains; empty means all.

    Raises:
        CheckFailed: an evaluation failed; the others were made.
    """
    stages = [stage.name for stage in recipe.stages if not only or stage.name in only]
    if recipe.eval is None or is_evaluated(recipe, stages, place.workspace):
        yield
        return
    run = place.workspace / "runs" / recipe.name
    until = ",".join(stages)
    arguments = ["--watch", str(run), "--until", until, "--workspace", str(place.workspace), "--threads", "1"]
    log = place.workspace / "logs" / f"eval-{recipe.name}.log"
    run.mkdir(parents=True, exist_ok=True)
    process = launch.start_module("owl3.eval", arguments, log=log)
    try:
        yield
        progress.start("evaluate")
        launch.wait_for(process, "owl3.eval", log)
        progress.finish()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def is_evaluated(recipe: Recipe, stages: Iterable[str], workspace: Path) -> bool:
    """Whether these stages are trained and no evaluation of theirs is wanting."""
    folders = [stage_folder(workspace, recipe.name, stage) for stage in stages]
    trained = all((folder / MANIFEST_NAME).is_file() for folder in folders)
    return trained and not any(queue.pending(folder) for folder in folders)


def drain_evaluations(recipe: Recipe, place: Place) -> None:
    """Make every score that a checkpoint of the recipe's run still wants.

    Raises:
        CheckFailed: an evaluation failed; the others were made.
    """
    run = place.workspace / "runs" / recipe.name
    arguments = ["--drain", str(run), "--workspace", str(place.workspace)]
    launch.run_module("owl3.eval", arguments, log=place.workspace / "logs" / f"eval-{recipe.name}.log")


@dataclass(frozen=True)
class Step:
    """One entry of a recipe's chain."""

    kind: str
    name: str
    function: StepFunction

    def run(self, recipe: Recipe, place: Place, progress: Progress = SILENT) -> Outcome:
        """Take the step and tell what it left."""
        began, clock = time.time(), time.monotonic()
        manifest = self.function(recipe, self.name, place, progress)
        return Outcome(
            step=f"{self.kind} {self.name}",
            artifact=f"{manifest.kind} {manifest.name}",
            digest=manifest.digest,
            counts=manifest.counts,
            seconds=round(time.monotonic() - clock, 1),
            was_done=self.kind != "audit" and _manifest_path(manifest, place).stat().st_mtime < began,
        )


def steps_before_training(recipe: Recipe) -> list[Step]:
    """Sources, shards, tokenizer, samples and plans, in the order they need each other."""
    return [
        *(Step("source", entry.name, prepare_source) for entry in recipe.sources),
        *(Step("curate", entry.name, curate_shards) for entry in recipe.curate),
        *(Step("tokenizer", entry.name, make_recipe_tokenizer) for entry in [recipe.tokenizer] if entry),
        *(Step("build", entry.name, build_samples) for entry in recipe.build),
        *(Step("plan", entry.name, plan_stage) for entry in recipe.stages),
    ]


def training_steps(recipe: Recipe) -> list[Step]:
    """The stages, each of which starts from the one before."""
    return [Step("train", entry.name, train_stage) for entry in recipe.stages]


def steps_after_training(recipe: Recipe) -> list[Step]:
    """The card and its audit."""
    cards = [recipe.card.name] if recipe.card else []
    return [*(Step("card", name, render_card) for name in cards), *(Step("audit", name, audit_card) for name in cards)]


def all_steps(recipe: Recipe) -> list[Step]:
    """The whole chain, in order."""
    return [*steps_before_training(recipe), *training_steps(recipe), *steps_after_training(recipe)]


def choose_steps(recipe: Recipe, kinds: Collection[str], only: Collection[str] | None) -> list[Step]:
    """The steps of some kinds and, with `only`, of some names.

    Raises:
        ConfigError: `only` names something that the recipe does not have.
    """
    steps = [step for step in all_steps(recipe) if step.kind in kinds]
    unknown = sorted(set(only or ()) - {step.name for step in steps})
    if unknown:
        known = ", ".join(dict.fromkeys(step.name for step in steps)) or "none"
        raise ConfigError(f"recipe {recipe.name}: no entry {unknown[0]!r} to {'/'.join(kinds)}; it has: {known}")
    return [step for step in steps if not only or step.name in only]


def run_chain(recipe: Recipe, place: Place, progress: Progress = SILENT) -> list[Outcome]:
    """Take every step of a recipe in order; what is done is left as it is.

    Raises:
        Owl3Error: from the step that could not be taken; running again goes on there.
    """
    outcomes = [step.run(recipe, place, progress) for step in steps_before_training(recipe)]
    with evaluating(recipe, place, progress):
        outcomes += [step.run(recipe, place, progress) for step in training_steps(recipe)]
    return outcomes + [step.run(recipe, place, progress) for step in steps_after_training(recipe)]


def digests(workspace: Path) -> dict[str, str]:
    """The digest of every finished artifact below a workspace, by its folder."""
    return {
        path.parent.relative_to(workspace).as_posix(): read_manifest(path.parent).digest
        for path in sorted(workspace.rglob(MANIFEST_NAME))
    }


def write_resolved(recipe: Recipe, workspace: Path) -> Path:
    """Save the recipe as it is meant, defaults and overrides included, beside the run it belongs to."""
    path = workspace / "runs" / recipe.name / "recipe.json"
    write_atomic(path, json.dumps(plain(recipe), indent=1, ensure_ascii=False).encode() + b"\n")
    return path


def resolve_from_environment() -> dict[str, str]:
    """Read `OWL3_RESOLVE="*.owl3.test=127.0.0.1:8123,…"`: where some hosts are, as curl's --resolve.

    Raises:
        ConfigError: an entry has no "=".
    """
    entries = [entry for entry in os.environ.get("OWL3_RESOLVE", "").split(",") if entry.strip()]
    wrong = next((entry for entry in entries if "=" not in entry), None)
    if wrong is not None:
        raise ConfigError(f"OWL3_RESOLVE: {wrong!r} must be HOST=ADDRESS:PORT")
    return {host.strip(): address.strip() for host, _, address in (entry.partition("=") for entry in entries)}


def _manifest_path(manifest: Manifest, place: Place) -> Path:
    folder = place.datacards if manifest.kind == "card" else place.workspace / FOLDERS[manifest.kind]
    return folder / manifest.name / MANIFEST_NAME


def entry_named(entries: Sequence[Any], name: str) -> Any:
    """The entry of a recipe's section that is called so.

    Raises:
        ConfigError: naming the entries there are.
    """
    found = next((entry for entry in entries if entry.name == name), None)
    if found is None:
        raise ConfigError(f"the recipe has no entry {name!r}; it has: {', '.join(e.name for e in entries) or 'none'}")
    return found
