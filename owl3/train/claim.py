"""Who may work in a stage's folder: one run at a time, all its ranks of one mind, and of the mind it was begun with."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from owl3.config import canonical_json
from owl3.errors import ConfigError
from owl3.manifest import lock_path
from owl3.storage import read_json, write_atomic
from owl3.train.distributed import World


@contextmanager
def claimed(folder: Path, world: World, task: Any) -> Iterator[None]:
    """Hold a stage's folder, on rank 0 for all. The lock ends with the process, however that dies. Collective.

    Args:
        task: What this rank was told to do (plain values); the same on every rank, or nothing is touched.

    Raises:
        ConfigError: ranks were told different things, or another run is at work here.
    """
    _check_same_on_all_ranks(world, task)
    lock = FileLock(lock_path(folder))
    taken = False
    if world.is_main:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            taken = True
    if any(world.gather(taken)):
        raise ConfigError(f"{folder}: another run is at work in this folder; wait for it, or end it")
    try:
        yield
    finally:
        lock.release()


def check_same_as_before(folder: Path, world: World, meaning: Mapping[str, Any]) -> None:
    """Refuse to continue a run under a recipe that would learn something else; note it down at its beginning.

    Raises:
        ConfigError: naming the keys that differ.
    """
    path = folder / "run.json"
    now = json.loads(canonical_json(meaning))
    if path.is_file():
        changed = sorted(_differences(read_json(path), now))
        if changed:
            raise ConfigError(
                f"{path}: this run was begun with another recipe (differs in {', '.join(changed)}); "
                "undo that, give the run another name, or remove the folder"
            )
    world.barrier()
    if world.is_main:
        write_atomic(path, json.dumps(now, indent=1, sort_keys=True).encode())


def _check_same_on_all_ranks(world: World, task: Any) -> None:
    everyone = world.gather(canonical_json(task))
    for rank, other in enumerate(everyone):
        if other != everyone[0]:
            raise ConfigError(
                f"rank {rank} has another recipe, plan, parent or --deepspeed-json than rank 0; start all with the same"
            )


def _differences(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _differences(one.get(key), other.get(key), f"{prefix}{key}.")
    elif one != other:
        yield prefix.rstrip(".")
