"""Checkpoints: written aside, complete only with a manifest, loadable at any world size.

    checkpoints/step-000100/
        model/                              a transformers folder: what evaluation loads
        state/rank-00000-000.safetensors    fp32 weights and AdamW moments of what learns, whole tensors
        trainer.json                        step, what was seen, proof of the order, digests of earlier checkpoints
        manifest.json                       written last

Every rank writes its share of the tensors (so writing scales with ranks) and reads what it needs back by name. No
random state is kept: every step seeds itself from the run's seed and its own number.
"""

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from owl3.config import Config, canonical_json
from owl3.errors import InputError, Interrupted
from owl3.manifest import MANIFEST_NAME, Counts, Parent, read_manifest, verify_files, write_manifest
from owl3.planfile import Proof
from owl3.storage import partial_path, write_atomic
from owl3.train.distributed import World
from owl3.train.engine import Engine
from owl3.train.export import Savable, write_model

logger = logging.getLogger(__name__)

_STATE_FILE_BYTES = 2 << 30


class Drop(Config):
    """A sample of the plan that could not be trained on."""

    step: int
    sample_id: str
    reason: str


class Saved(Config):
    """An earlier checkpoint of this run; its folder may be gone by now."""

    step: int
    weights: str  # digest
    proof: str


class TrainerState(Config):
    """Where the stage stands after `step` steps. The same, whatever the world size and however often it was resumed."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    images: int = 0
    loss: float | None = None  # of the last step
    proof: Proof | None = None  # of the samples seen; None before the first step
    drops: tuple[Drop, ...] = ()
    history: tuple[Saved, ...] = ()

    def counts(self) -> Counts:
        """What became of every sample whose turn came."""
        reasons = sorted({drop.reason for drop in self.drops})
        dropped = {reason: sum(drop.reason == reason for drop in self.drops) for reason in reasons}
        return Counts(seen=self.samples, kept=self.samples - len(self.drops), dropped=dropped)


class Checkpoints:
    """The checkpoints folder of one stage. Methods marked collective are called by all ranks together."""

    def __init__(self, folder: Path, world: World, *, plan: Parent, limit: int) -> None:
        self.folder = folder
        self._world = world
        self._plan = plan
        self.extras: Sequence[Savable] = ()  # what is saved beside the model: its processor
        self._limit = limit

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps lies, or would lie."""
        return self.folder / f"step-{step:06d}"

    def save(self, engine: Engine, state: TrainerState, *, keep_in_history: bool) -> tuple[Path, TrainerState]:
        """Write a checkpoint. Collective.

        Args:
            engine: Its weights and state are gathered tensor by tensor.
            state: Stands after `state.step` steps.
            keep_in_history: Whether the run's manifest will tell of it; an unscheduled one is not part of the run.

        Returns:
            The checkpoint's folder and the state with its own digest in the history.

        Raises:
            Interrupted: when a rank could not write (disk full); what was there before is untouched.
        """
        target = self.path(state.step)
        aside = partial_path(target)
        if self._world.is_main:
            shutil.rmtree(aside, ignore_errors=True)
            (aside / "state").mkdir(parents=True)
        self._world.barrier()
        errors: list[str] = []
        weights = dict(_collect(engine.weights(), keep=self._world.is_main))
        digest = self._attempt(errors, lambda: write_model(aside / "model", engine.model, weights, self.extras))
        weights.clear()
        self._write_state(aside / "state", engine.state(), errors)
        self._raise_together(errors, aside, state.step)
        [digest] = {entry for entry in self._world.gather(digest) if entry}
        assert state.proof is not None, "a checkpoint is saved after a step"
        saved = Saved(step=state.step, weights=digest, proof=state.proof.digest)
        if keep_in_history:
            state = state.model_copy(update={"history": (*state.history, saved)})
        if self._world.is_main:
            self._finish(aside, target, state, errors)
        self._raise_together(errors, aside, state.step)
        return target, state

    def _attempt(self, errors: list[str], write: Callable[[], str]) -> str:
        """Run rank 0's part; note a failure to write instead of raising, for other ranks wait in the next exchange."""
        if not self._world.is_main:
            return ""
        try:
            return write()
        except OSError as error:
            errors.append(str(error))
            return "failed"

    def _write_state(self, folder: Path, tensors: Iterable[tuple[str, Tensor]], errors: list[str]) -> None:
        """Write this rank's share: every so manieth tensor, a file per 2 GB."""
        part: dict[str, Tensor] = {}
        part_bytes = number = 0

        def flush() -> None:
            nonlocal part_bytes, number
            if part and not errors:
                try:
                    save_file(part, folder / f"rank-{self._world.rank:05d}-{number:03d}.safetensors")
                except OSError as error:
                    errors.append(str(error))
            number += 1
            part_bytes = 0
            part.clear()

        for index, (name, tensor) in enumerate(tensors):
            if index % self._world.size == self._world.rank:
                part[name] = tensor.contiguous()
                part_bytes += tensor.nbytes
                if part_bytes >= _STATE_FILE_BYTES:
                    flush()
        flush()

    def _finish(self, aside: Path, target: Path, state: TrainerState, errors: list[str]) -> None:
        try:
            write_atomic(aside / "trainer.json", canonical_json(state))
            write_manifest(
                aside,
                kind="checkpoint",
                name="/".join(target.parts[-4:-2]) + f"/{target.name}",
                counts=state.counts(),
                parents=[self._plan],
                stats={"step": state.step, "proof": state.proof.digest if state.proof else ""},
            )
            _sync(aside)
            if target.exists():  # a damaged one that resuming went back before
                shutil.rmtree(target)
            aside.replace(target)
        except OSError as error:
            errors.append(str(error))

    def _raise_together(self, errors: list[str], aside: Path, step: int) -> None:
        """End on all ranks when one of them failed."""
        failed = [(rank, texts) for rank, texts in enumerate(self._world.gather(errors)) if texts]
        if failed:
            rank, texts = failed[0]
            if self._world.is_main:
                shutil.rmtree(aside, ignore_errors=True)
            raise Interrupted(
                f"{self.folder}: rank {rank} could not save step {step} ({texts[0]}); earlier checkpoints are "
                "untouched; make room and run again"
            )

    def latest(self, follows_plan: Callable[[Proof], bool]) -> tuple[Path, TrainerState] | None:
        """Find the newest checkpoint to go on from, going back over those that can't be used. Collective.

        A checkpoint without a manifest was being written when the run was killed: it is removed. One whose bytes do
        not match its manifest is put aside as `step-N.damaged`, and one that saw other samples than the plan's first
        steps (a sample was retracted since, and the plan made anew) as `step-N.other-plan`, so that a person can look.
        """
        found = self._newest(follows_plan) if self._world.is_main else None
        path = self._world.gather(found)[0]
        return None if path is None else (path, read_state(path))

    def _newest(self, follows_plan: Callable[[Proof], bool]) -> Path | None:
        if not self.folder.is_dir():
            return None
        for rest in self.folder.glob(".step-*.partial"):
            logger.warning("%s: was being written when the run stopped; removed", rest)
            shutil.rmtree(rest)
        for path in reversed(self.all()):
            findings = _check(path)
            if findings:
                _put_aside(path, "damaged", findings[0])
                continue
            proof = read_state(path).proof
            if proof is not None and follows_plan(proof):
                return path
            _put_aside(path, "other-plan", f"{path}: saw other samples than this plan's first steps")
        return None

    def all(self) -> list[Path]:
        """Every complete checkpoint, oldest first."""
        return sorted(path for path in self.folder.glob("step-*") if path.is_dir() and not path.suffix)

    def prune(self, keep: Iterable[Path] = ()) -> None:
        """Remove the oldest beyond the limit, except those in `keep` (the best one, one waiting for evaluation)."""
        if not self._world.is_main:
            return
        kept = set(keep)
        for path in self.all()[: -self._limit]:
            if path not in kept:
                aside = partial_path(path)
                path.rename(aside)  # so that a kill while removing leaves no half checkpoint under its name
                shutil.rmtree(aside)


def state_reader(checkpoint: Path) -> Callable[[str], Tensor]:
    """Read tensors of saved state by name, whichever rank has written them."""
    files: dict[str, Any] = {}
    for file in sorted((checkpoint / "state").glob("*.safetensors")):
        tensors: Any = safe_open(file, framework="pt")
        files.update(dict.fromkeys(tensors.keys(), tensors))

    def read(name: str) -> Tensor:
        if name not in files:
            raise InputError(
                f"{checkpoint}: holds no {name}; it was saved by a run that trained other parameters. "
                "Give this run another name, or remove the checkpoint"
            )
        tensor: Tensor = files[name].get_tensor(name)
        return tensor

    return read


def _collect(tensors: Iterator[tuple[str, Tensor]], *, keep: bool) -> Iterator[tuple[str, Tensor]]:
    """Take part in gathering every tensor, and keep them on the rank that writes."""
    for name, tensor in tensors:
        if keep:
            yield name, tensor


def read_state(checkpoint: Path) -> TrainerState:
    """Where the run stood when the checkpoint was saved."""
    return TrainerState.model_validate_json((checkpoint / "trainer.json").read_bytes())


def _put_aside(path: Path, why: str, message: str) -> None:
    logger.warning("%s; going back to the checkpoint before", message)
    aside = path.with_name(f"{path.name}.{why}")
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)


def _check(path: Path) -> list[str]:
    if not (path / MANIFEST_NAME).is_file():
        return [f"{path}: has no manifest"]
    try:
        return verify_files(path, read_manifest(path))
    except InputError as error:
        return [str(error)]


def _sync(folder: Path) -> None:
    """Bring every file below `folder` to disk before its name says it is complete."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
