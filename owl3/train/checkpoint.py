"""Checkpoints: written aside, complete only with a manifest, loadable at any world size.

    checkpoints/step-000100/
        model/                              a transformers folder: what training goes on from
        average/                            another one, of averaged weights, where the stage has ema_decay
        state/rank-00000-000.safetensors    fp32 weights and AdamW moments of what learns, whole tensors
        trainer.json                        step, what was seen, proof of the order, digests of earlier checkpoints
        manifest.json                       written last

Every rank writes its share of the tensors (so writing scales with ranks) and reads what it needs back by name. No
random state is kept: every step seeds itself from the run's seed and its own number.
"""

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
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
_NAME = re.compile(r"step-\d+")

AVERAGE = "average"
"""Model folder of averaged weights; where there is one it is what a stage hands over and evaluation loads."""


def handed_over(checkpoint: Path) -> Path:
    """The model folder that stands for a checkpoint: the averaged weights where they are kept."""
    average = checkpoint / AVERAGE
    return average if average.is_dir() else checkpoint / "model"


class Drop(Config):
    """A sample of the plan that could not be trained on."""

    step: int
    sample_id: str
    reason: str


class Saved(Config):
    """An earlier checkpoint of this run; its folder may be gone by now."""

    step: int
    weights: str  # digest of what would be handed over
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

    def with_saved(self, saved: Saved) -> "TrainerState":
        """The same state, with one more checkpoint in its history."""
        return self.model_copy(update={"history": (*self.history, saved)})

    def counts(self) -> Counts:
        """What became of every sample whose turn came."""
        reasons = sorted({drop.reason for drop in self.drops})
        dropped = {reason: sum(drop.reason == reason for drop in self.drops) for reason in reasons}
        return Counts(seen=self.samples, kept=self.samples - len(self.drops), dropped=dropped)


@dataclass
class _Begun:
    """A checkpoint on its way to disk."""

    target: Path
    aside: Path
    state: TrainerState
    keep_in_history: bool
    digest: str = ""  # of the weights that the stage would hand over; on rank 0
    errors: list[str] = field(default_factory=list)
    failure: BaseException | None = None
    writer: threading.Thread | None = None

    def write(self, parts: Iterable[Callable[[], None]]) -> None:
        """Write parts; note a failure instead of raising, for other ranks wait in the next exchange.

        Also one that nobody has thought of: raised in a thread it would only be printed, and the checkpoint would pass
        for complete without this part.
        """
        for part in parts:
            if self.errors or self.failure:
                return
            try:
                part()
            except (OSError, SafetensorError) as error:
                self.errors.append(str(error))
            except Exception as error:  # noqa: BLE001 - `finish` raises it
                self.failure = error


class Checkpoints:
    """The checkpoints folder of one stage. Methods marked collective are called by all ranks together."""

    def __init__(self, folder: Path, world: World, *, plan: Parent, limit: int) -> None:
        self.folder = folder
        self._world = world
        self._plan = plan
        self.extras: Sequence[Savable] = ()  # what is saved beside the model: its processor
        self.keeps_average = False  # whether a model folder of averaged weights belongs to each checkpoint
        self._limit = limit
        self._begun: _Begun | None = None

    def path(self, step: int) -> Path:
        """Where the checkpoint after `step` steps lies, or would lie."""
        return self.folder / f"step-{step:06d}"

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint was begun and not finished. The same on all ranks."""
        return self._begun is not None

    @property
    def is_written(self) -> bool:
        """Whether this rank has written its part of the checkpoint that was begun."""
        return self._begun is not None and not (self._begun.writer and self._begun.writer.is_alive())

    def save(self, engine: Engine, state: TrainerState, *, keep_in_history: bool) -> tuple[Path, Saved]:
        """Write a checkpoint: `begin`, then `finish`. Collective."""
        self.begin(engine, state, keep_in_history=keep_in_history)
        return self.finish()

    def begin(
        self, engine: Engine, state: TrainerState, *, keep_in_history: bool, aside_of_training: bool = False
    ) -> None:
        """Gather everything and write it, or let a thread write it. Collective; `finish` has to follow.

        Args:
            engine: Its weights and state are gathered tensor by tensor.
            state: Stands after `state.step` steps.
            keep_in_history: Whether the run's manifest will tell of it; an unscheduled one is not part of the run.
            aside_of_training: Write from a copy in memory, in a thread, while training goes on.
        """
        assert self._begun is None, "the checkpoint before is not finished"
        assert state.proof is not None, "a checkpoint is saved after a step"
        target = self.path(state.step)
        begun = _Begun(target, partial_path(target), state, keep_in_history)
        if self._world.is_main:
            begun.write([partial(_make_empty, begun.aside)])
        self._raise_together(begun)
        self._begun = begun
        later: list[Callable[[], None]] | None = [] if aside_of_training else None
        self._write_weights(begun, engine, "model", later)
        if self.keeps_average:
            self._write_weights(begun, engine, AVERAGE, later)
        self._write_state(begun, engine.state(), later)
        if later is not None:
            begun.writer = threading.Thread(target=begun.write, args=[later], name="owl3-checkpoint")
            begun.writer.start()

    def finish(self) -> tuple[Path, Saved]:
        """Wait until every rank has written, and let the checkpoint be one. Collective.

        Returns:
            Its folder, and what the run's history holds of it.

        Raises:
            Interrupted: when a rank could not write (disk full); what was there before is untouched.
        """
        begun, self._begun = self._begun, None
        assert begun is not None, "no checkpoint was begun"
        if begun.writer is not None:
            begun.writer.join()
        if begun.failure is not None:
            raise begun.failure
        self._raise_together(begun)
        [digest] = {entry for entry in self._world.gather(begun.digest) if entry}
        state = begun.state
        assert state.proof is not None
        saved = Saved(step=state.step, weights=digest, proof=state.proof.digest)
        if self._world.is_main:
            self._finish(begun, state.with_saved(saved) if begun.keep_in_history else state)
        self._raise_together(begun)
        return begun.target, saved

    def _write_weights(
        self, begun: "_Begun", engine: Engine, name: str, later: list[Callable[[], None]] | None
    ) -> None:
        """Gather a model folder's tensors, and let rank 0 write it."""
        weights = dict(_collect(engine.weights(averaged=name == AVERAGE), keep=self._world.is_main))
        if not self._world.is_main:
            return

        def write() -> None:
            begun.digest = write_model(begun.aside / name, engine.model, weights, self.extras)

        if later is None:
            begun.write([write])
        else:
            weights = {key: tensor.clone() for key, tensor in weights.items()}
            later.append(write)

    def _write_state(
        self, begun: "_Begun", tensors: Iterable[tuple[str, Tensor]], later: list[Callable[[], None]] | None
    ) -> None:
        """Write this rank's share: every so manieth tensor, a file per 2 GB."""
        part: dict[str, Tensor] = {}
        part_bytes = number = 0

        def flush() -> None:
            nonlocal part, part_bytes, number
            path = begun.aside / "state" / f"rank-{self._world.rank:05d}-{number:03d}.safetensors"
            write = partial(save_file, part, path)
            if later is not None:
                later.append(write)
            elif part:
                begun.write([write])
            number += 1
            part, part_bytes = {}, 0

        for index, (name, tensor) in enumerate(tensors):
            if index % self._world.size == self._world.rank:
                part[name] = tensor.contiguous() if later is None else tensor.contiguous().clone()
                part_bytes += tensor.nbytes
                if part_bytes >= _STATE_FILE_BYTES:
                    flush()
        if part:
            flush()

    def _finish(self, begun: "_Begun", state: TrainerState) -> None:
        aside, target = begun.aside, begun.target
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
            _sync_entry(target.parent)  # its name too, before `prune` takes an older one away
        except OSError as error:
            begun.errors.append(str(error))

    def _raise_together(self, begun: "_Begun") -> None:
        """End on all ranks when one of them failed."""
        failed = [(rank, texts) for rank, texts in enumerate(self._world.gather(begun.errors)) if texts]
        if failed:
            rank, texts = failed[0]
            if self._world.is_main:
                shutil.rmtree(begun.aside, ignore_errors=True)
            raise Interrupted(
                f"{self.folder}: rank {rank} could not save step {begun.state.step} ({texts[0]}); earlier checkpoints "
                "are untouched; make room and run again"
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
        found = [path for path in self.folder.glob("step-*") if _NAME.fullmatch(path.name) and path.is_dir()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def prune(self, keep: Iterable[Path] = ()) -> None:
        """Remove the oldest beyond the limit, except those in `keep` (the best one, one waiting for evaluation)."""
        if not self._world.is_main:
            return
        kept = set(keep)
        for path in self.all()[: -self._limit]:
            if path not in kept:
                aside = partial_path(path)
                path.rename(aside)  # so that a kill while removing leaves no half checkpoint under its name
                try:
                    shutil.rmtree(aside)
                except OSError as error:  # a network disk, where somebody still reads a file of it
                    logger.warning("%s: could not be removed (%s); the next start does it", aside, error)


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


def _make_empty(aside: Path) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    (aside / "state").mkdir(parents=True)


def _sync(folder: Path) -> None:
    """Bring every file below `folder` to disk before its name says it is complete."""
    for path in [*folder.rglob("*"), folder]:
        _sync_entry(path)


def _sync_entry(path: Path) -> None:
    """Bring a file to disk, or what a folder says of its entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
