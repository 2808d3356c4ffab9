"""Which checkpoints still want which scores: a queue of files beside the checkpoints, safe to kill and to share.

    runs/NAME/STAGE/evals/
        requests/KEY.json       written whole by the trainer when a checkpoint is complete
        locks/KEY.lock          held by the process that works on it
        failures/KEY.json       why the last attempt failed (volatile)
        step-000100/TASK-KEY/   the result; its manifest.json makes the request done

KEY hashes what a score depends on: weights, task and its version, processor, question limit, blind or not, and the
method; not where the files lie. So the same weights are never scored twice, and a new task version asks anew.

A claim is a lock of the operating system, not a lease: it ends with the process that holds it, however that dies, and
no clock takes part. State is what lies on the disk, so there is nothing to repair after a kill.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from owl3.config import Config, canonical_json, digest_of, validate
from owl3.errors import InputError
from owl3.eval.overlap import overlap_digest, overlap_files
from owl3.eval.registry import find_task
from owl3.eval.settings import EvalConfig
from owl3.manifest import Parent
from owl3.storage import read_json, sha256_of, write_atomic

log = logging.getLogger(__name__)

EVALS_NAME = "evals"
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json", "tokenizer.json", "chat_template.jinja")


class Request(Config):
    """One task to be put to one set of weights."""

    model: str
    """Folder of the weights, relative to the stage's folder where it lies below it."""
    weights: str
    processor: str
    checkpoint: str
    """`step-000100`, or `end`."""
    step: int
    task: str
    task_version: str
    title: str
    """What the result is called: the task's name, or its label in the recipe."""
    folder: str
    limit: int | None = None
    blind: bool = False
    num_frames: int | None = None
    """Frames of each video instead of the task's own number."""
    batch_size: int = 16
    method: str = "generate"
    max_error_fraction: float = 0.0
    overlap: tuple[str, ...] = ()
    """Lists of what training may have seen, relative to the workspace."""
    overlap_digest: str = ""

    @property
    def key(self) -> str:
        """What the score depends on. Batch size and paths are not part of it."""
        return digest_of(self.settings())[:12]

    def settings(self) -> dict[str, Any]:
        """The part of a request that a result's manifest repeats."""
        names = ("weights", "processor", "task", "task_version", "title", "limit", "blind", "num_frames", "method")
        settings = {name: getattr(self, name) for name in names}
        # Absent without a list, so that keys of results stay what they were.
        return settings | ({"overlap": self.overlap_digest} if self.overlap_digest else {})

    def as_parent(self) -> Parent:
        """What was scored, in a result's manifest: weights, wherever they lay."""
        return Parent(kind="model", name=self.checkpoint, digest=self.weights)

    def result_name(self) -> str:
        """The name of its result's folder."""
        return f"{self.title}{'-blind' if self.blind else ''}-{self.key}"

    def result_folder(self, stage_dir: Path) -> Path:
        """Where its result lies or will lie."""
        return stage_dir / EVALS_NAME / self.checkpoint / self.result_name()

    def is_done(self, stage_dir: Path) -> bool:
        """Whether the result is complete."""
        return (self.result_folder(stage_dir) / "manifest.json").is_file()


def weights_digest(model_dir: Path) -> str:
    """Hash the weights and the configuration of a `transformers` folder.

    Raises:
        InputError: the folder holds no complete model: wrong path, or still being written.
    """
    if not (model_dir / "config.json").is_file():
        raise InputError(f"{model_dir}: no config.json; not a model folder, or one that is still being written")
    index = model_dir / "model.safetensors.index.json"
    names = sorted(set(json.loads(index.read_bytes())["weight_map"].values())) if index.is_file() else []
    files = [model_dir / name for name in names] or sorted(model_dir.glob("*.safetensors"))
    missing = [path.name for path in files if not path.is_file()]
    if missing or not files:
        lacking = missing[0] if missing else "*.safetensors"
        raise InputError(f"{model_dir}: {lacking} is missing; the checkpoint is incomplete or still being written")
    return digest_of([sha256_of(path) for path in (model_dir / "config.json", *files)])


def processor_digest(model_dir: Path) -> str:
    """Hash the files that say how a question becomes model input."""
    digest = hashlib.sha256()
    for name in _PROCESSOR_FILES:
        path = model_dir / name
        digest.update(canonical_json([name, sha256_of(path) if path.is_file() else None]))
    return digest.hexdigest()


def make_requests(
    stage_dir: Path, model_dir: Path, *, step: int, config: EvalConfig, workspace: Path, end: bool = False
) -> list[Request]:
    """What `config` wants to know about these weights: each task, and its blind run where asked for."""
    weights, processor = weights_digest(model_dir), processor_digest(model_dir)
    below = model_dir.resolve().is_relative_to(stage_dir.resolve())
    place = model_dir.resolve().relative_to(stage_dir.resolve()) if below else model_dir.resolve()
    requests = []
    for setting in config.tasks:
        if setting.when == "end" and not end:
            continue
        limit = setting.limit if end or setting.checkpoint_limit is None else setting.checkpoint_limit
        folder = config.task_folder(setting, workspace)
        inside = folder.resolve().is_relative_to(workspace.resolve())
        request = Request(
            model=str(place),
            weights=weights,
            processor=processor,
            checkpoint="end" if end else f"step-{step:06d}",
            step=step,
            task=find_task(setting.name).name,
            task_version=find_task(setting.name).version,
            title=setting.title,
            folder=setting.folder if inside else str(folder),
            limit=limit,
            num_frames=setting.num_frames,
            batch_size=config.batch_size,
            method=config.method,
            max_error_fraction=config.max_error_fraction,
            overlap=setting.overlap,
            overlap_digest=overlap_digest(overlap_files(folder, [workspace / path for path in setting.overlap])),
        )
        requests.append(request)
        if setting.blind == "always" or (setting.blind == "end" and end):
            requests.append(request.model_copy(update={"blind": True}))
    return requests


def enqueue(
    stage_dir: Path, model_dir: Path, *, step: int, config: EvalConfig, workspace: Path, end: bool = False
) -> list[Request]:
    """Leave a request for every task. Asking twice is the same as asking once.

    Args:
        stage_dir: `runs/NAME/STAGE`.
        model_dir: A complete `transformers` folder, whose files must stay until the queue is drained.
        step: The step the weights belong to.
        config: The recipe's `eval` section.
        workspace: What the tasks' folders are relative to.
        end: Whether these are the stage's final weights: full question limits, and blind runs beside them.
    """
    requests = make_requests(stage_dir, model_dir, step=step, config=config, workspace=workspace, end=end)
    for request in requests:
        path = stage_dir / EVALS_NAME / "requests" / f"{request.checkpoint}-{request.key}.json"
        if not path.is_file():
            write_atomic(path, canonical_json(request) + b"\n")
    return requests


def read_requests(stage_dir: Path) -> list[Request]:
    """All requests of a stage, earliest step first, the end last, tasks in alphabetical order."""
    folder = stage_dir / EVALS_NAME / "requests"
    paths = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))
    requests = [validate(read_json(path), Request, str(path)) for path in paths]
    return sorted(requests, key=lambda r: (r.step, r.checkpoint == "end", r.title, r.blind))


def pending(stage_dir: Path) -> list[Request]:
    """Requests without a complete result."""
    return [request for request in read_requests(stage_dir) if not request.is_done(stage_dir)]


def stage_dirs(run_or_stage: Path) -> list[Path]:
    """The stage folders with a queue below a run's folder, or the stage folder itself."""
    if (run_or_stage / EVALS_NAME).is_dir():
        return [run_or_stage]
    return sorted(path.parent for path in run_or_stage.glob(f"*/{EVALS_NAME}") if path.is_dir())


@contextmanager
def claim(stage_dir: Path, request: Request) -> Iterator[bool]:
    """Hold a request while working on it; yields False when another process holds it, or it is done meanwhile."""
    locks = stage_dir / EVALS_NAME / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    lock = FileLock(locks / f"{request.checkpoint}-{request.key}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    try:
        # Another worker may have finished between our listing and our lock.
        yield not request.is_done(stage_dir)
    finally:
        lock.release()


def failure_path(stage_dir: Path, request: Request) -> Path:
    """Where the reason of the last failed attempt stands."""
    return stage_dir / EVALS_NAME / "failures" / f"{request.checkpoint}-{request.key}.json"


def note_failure(stage_dir: Path, request: Request, reason: str) -> None:
    """Keep the reason beside the queue; the request stays pending and the next drain tries again."""
    log.error("evaluation of %s on %s failed: %s", request.checkpoint, request.task, reason)
    write_atomic(failure_path(stage_dir, request), canonical_json({"reason": reason, **request.settings()}) + b"\n")


def failure(stage_dir: Path, request: Request) -> str | None:
    """Why the last attempt failed; None when it did not, or there was none."""
    path = failure_path(stage_dir, request)
    return str(read_json(path)["reason"]) if path.is_file() else None


def clear_failure(stage_dir: Path, request: Request) -> None:
    """Forget an earlier failure once the request is done."""
    failure_path(stage_dir, request).unlink(missing_ok=True)
