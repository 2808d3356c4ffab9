"""A corpus in partitions: corpus x shard range x snapshot date, fetched apart, at once, anywhere, in any order.

A partition fetches and judges its shards below `shards/NAME/_work`; what needs the whole corpus in view (duplicates,
dead hosts) and the writing of the shards follow when all of them are there, in `owl3.curate.run.curate`. So cutting a
corpus changes no byte of what comes out. A snapshot is the same set fetched on another day, under a name of its own.

Whoever works on shards holds them (`range_lock`), so a second start of a partition waits or is refused.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq

from owl3.config import Config
from owl3.curate.config import CurateConfig, num_shards, shards_folder
from owl3.curate.run import EVERY, CurateRun, made_for, ranges_path
from owl3.curate.sources.urltables import source_folder
from owl3.curate.spool import bodies_path
from owl3.errors import ConfigError, StaleError
from owl3.manifest import MANIFEST_NAME, Counts, find_current, read_manifest
from owl3.progress import SILENT, Progress
from owl3.storage import range_lock

State = Literal["missing", "partial", "fetched", "done", "stale"]
MAX_PARTITIONS = 64
"""Most partitions that one flow run cuts a corpus into: thousands of shards never mean thousands of task runs."""


class Partition(Config):
    """Shards `first` to `last` (half-open) of a set."""

    set: str
    first: int
    last: int

    @property
    def label(self) -> str:
        """What it is called: `web-2026-11-22 00000-00063`, both ends included."""
        return f"{self.set} {self.first:05d}-{self.last - 1:05d}"


class Fetched(Config):
    """What a partition has, before or after the whole corpus was looked at."""

    partition: Partition
    counts: Counts
    stored_bytes: int
    seconds: float
    was_done: bool


def snapshot(config: CurateConfig, day: date | None) -> CurateConfig:
    """The same set as fetched on a day: a set of its own, called NAME-YYYY-MM-DD."""
    return config if day is None else config.model_copy(update={"name": f"{config.name}-{day.isoformat()}"})


def cut(
    config: CurateConfig, workspace: Path, *, most: int = MAX_PARTITIONS, only: tuple[int, int] | None = None
) -> list[Partition]:
    """Cut a set whose source is prepared into at most `most` partitions of like size.

    Args:
        only: Shards to take (half-open); None means all.

    Raises:
        InputError: the source is not prepared. ConfigError: the range holds no shard of it.
    """
    total = num_shards(config, workspace)
    first, last = only or (0, total)
    last = min(last, total)
    if not 0 <= first < last and total:
        raise ConfigError(f"curate {config.name}: no shards {first}:{only and only[1]}; it has 0:{total}")
    size = max(1, -(-(last - first) // most))
    return [Partition(set=config.name, first=start, last=min(start + size, last)) for start in range(first, last, size)]


def state(config: CurateConfig, workspace: Path, partition: Partition) -> State:
    """How far a partition is, judged by files and digests alone.

    `stale` is what another recipe or another source made: it has to be made anew (`--backfill`).
    """
    return states(config, workspace, [partition])[0]


def states(config: CurateConfig, workspace: Path, parts: Sequence[Partition]) -> list[State]:
    """`state` of many partitions of one set; what they have in common is looked at once."""
    whole = _state_of_set(config, workspace)
    work = shards_folder(workspace, config.name) / "_work"
    return [whole or _state_of_part(work, part) for part in parts]


def _state_of_set(config: CurateConfig, workspace: Path) -> Literal["done", "stale"] | None:
    """None while its partitions may differ."""
    folder = shards_folder(workspace, config.name)
    source = read_manifest(source_folder(workspace, config.source))
    recipe = config.recipe(workspace)
    try:
        if find_current(folder, recipe, [source]) is not None:
            return "done"
    except StaleError:
        return "stale"
    mark = folder / "_work" / "made_for"
    is_other = mark.is_file() and mark.read_text(encoding="ascii") != made_for(recipe, source)
    return "stale" if is_other else None


def _state_of_part(work: Path, partition: Partition) -> State:
    there = sum((work / "ratings" / f"{n:05d}.parquet").is_file() for n in range(partition.first, partition.last))
    if there == partition.last - partition.first:
        return "fetched"
    return "partial" if there or (work / "fetch" / f"{partition.first:05d}.parquet").is_file() else "missing"


def fetch_partition(
    config: CurateConfig,
    workspace: Path,
    partition: Partition,
    *,
    resolve: Mapping[str, str] | None = None,
    wait: bool = True,
    progress: Progress = SILENT,
) -> Fetched:
    """Fetch and judge a partition's shards; what is there already stays. Nothing is done once the set is finished.

    Raises:
        InputError: with `wait` off, somebody works on some of these shards; or img2dataset keeps failing.
        StaleError: another recipe or source made what lies there.
    """
    began = time.monotonic()
    folder = shards_folder(workspace, config.name)
    source = read_manifest(source_folder(workspace, config.source))
    recipe = config.recipe(workspace)
    with range_lock(ranges_path(folder), partition.first, partition.last, wait=wait):
        was_done = state(config, workspace, partition) in ("done", "fetched")
        if find_current(folder, recipe, [source]) is None:
            run = CurateRun(config, workspace, source=source, recipe=recipe, resolve=resolve or {}, progress=progress)
            run.begin(folder, None)
            run.fetch(range(partition.first, partition.last))
        return Fetched(
            partition=partition,
            counts=_counts(folder, partition),
            stored_bytes=_stored_bytes(folder, partition),
            seconds=round(time.monotonic() - began, 1),
            was_done=was_done,
        )


def prepare_to_renew(config: CurateConfig, workspace: Path) -> None:
    """Throw away work that another recipe or source began, so that it is begun anew; finished shards stay.

    Raises:
        InputError: somebody works on the set.
    """
    folder = shards_folder(workspace, config.name)
    if (folder / MANIFEST_NAME).is_file():
        return  # `curate` makes the new version beside the old one
    source = read_manifest(source_folder(workspace, config.source))
    with range_lock(ranges_path(folder), *EVERY, wait=False):
        run = CurateRun(config, workspace, source=source, recipe=config.recipe(workspace), resolve={}, progress=SILENT)
        run.begin(folder, None, renew=True)


def is_stale(config: CurateConfig, workspace: Path) -> bool:
    """Whether a set has to be made anew as a whole."""
    return state(config, workspace, Partition(set=config.name, first=0, last=0)) == "stale"


def _tables(folder: Path, partition: Partition) -> list[Path]:
    """Final tables of the partition's shards or, before they are written, what was found when they were judged."""
    numbers = [f"{number:05d}.parquet" for number in range(partition.first, partition.last)]
    final = (folder / MANIFEST_NAME).is_file()
    return [(folder if final else folder / "_work" / "ratings") / name for name in numbers]


def _counts(folder: Path, partition: Partition) -> Counts:
    reasons: Counter[str | None] = Counter()
    for path in _tables(folder, partition):
        reasons.update(pq.read_table(path, columns=["reason"]).column("reason").to_pylist())
    kept = reasons.pop(None, 0)
    dropped = {reason: count for reason, count in sorted(reasons.items(), key=str) if reason is not None}
    return Counts(seen=kept + sum(dropped.values()), kept=kept, dropped=dropped)


def _stored_bytes(folder: Path, partition: Partition) -> int:
    """Bytes of the partition's tars, or of what was fetched for them so far."""
    numbers = [f"{number:05d}" for number in range(partition.first, partition.last)]
    if (folder / MANIFEST_NAME).is_file():
        paths = [folder / f"{number}.tar" for number in numbers]
    else:
        paths = [bodies_path(folder / "_work" / "spools" / number) for number in numbers]
    return sum(path.stat().st_size for path in paths if path.is_file())
