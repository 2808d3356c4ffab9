"""`owl3 build`: from a config and its parents to `samples/NAME`.

    prepare   parents → row tables in samples/NAME/.work
    waves     attempts are cut into runs, one output shard each; workers write them in any order
    manifest  counts and costs are read back from the shards' indexes, so a resumed build equals an uninterrupted one

A wave makes as many attempts as samples are still wanted, so the count is exact without any worker knowing of another:
the second wave replaces what the first one dropped, and so on.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from owl3.build.base import Builder, Prepared
from owl3.build.builders import builder_class
from owl3.build.config import BuildBase
from owl3.build.draw import Run, plan_runs
from owl3.build.stats import count_index, sample_stats
from owl3.build.workers import Workers
from owl3.build.write import ShardBuilder, shard_name, tar_hashes
from owl3.config import digest_of
from owl3.errors import InputError
from owl3.manifest import Counts, Manifest, find_current, lock_path, now, read_manifest, tool_versions, write_manifest
from owl3.progress import SILENT, Progress
from owl3.storage import sha256_of, write_atomic
from owl3.tokens import TextTokenizer

_HARMLESS = ("not_selected", "duplicate_row")
"""Drops by which nothing went wrong: rows of another kind in the same file, and rows that files repeat on purpose."""


def build(cfg: BuildBase, workspace: Path, progress: Progress = SILENT, *, processes: int | None = None) -> Manifest:
    """Build `samples/NAME`, or find that it is done; after a kill, go on where it stopped.

    Args:
        cfg: One entry of a recipe's `build:` section.
        processes: Worker processes; None: one per core, but only for work that takes longer than they take to start.
            The bytes do not depend on it.

    Raises:
        InputError: when a parent is missing, the count can't be reached, or too much is dropped.
        StaleError: when another recipe made what lies there.
    """
    workspace = workspace.absolute()
    folder = workspace / "samples" / cfg.name
    recipe = recipe_of(cfg, workspace)
    parents = [read_manifest(workspace / "tokenizers" / cfg.tokenizer)]
    parents += [read_manifest(workspace / "shards" / name) for name in cfg.shards]
    parents += [read_manifest(workspace / "samples" / name) for name in getattr(cfg, "samples", ())]
    with FileLock(lock_path(folder)):
        done = find_current(folder, recipe, parents)
        if done is not None:
            shutil.rmtree(folder / ".work", ignore_errors=True)
            return done
        started = now()
        work = work_folder(folder, digest_of([recipe, [parent.digest for parent in parents]]))
        prepared = _prepare(cfg, workspace, work)
        tokenizer = TextTokenizer.load(workspace / "tokenizers" / cfg.tokenizer)
        builder = builder_class(cfg)(cfg, workspace, work)
        here = ShardBuilder(builder, tokenizer, folder, workspace)
        _build_all(Workers(here, processes), builder, folder, progress)
        counts = Counts.total(count_index(path) for path in _indexes(folder))
        _check_budget(cfg, counts)
        stats = {
            **sample_stats(folder),
            "parents": prepared.parents,
            "inputs": prepared.inputs,
            "builder_version": builder.version(),
            "tokenizer_digest": tokenizer.digest,
            "release": cfg.release,
            "tile_px": cfg.tile_px,
        }
        manifest = write_manifest(
            folder,
            kind="samples",
            name=cfg.name,
            recipe=recipe,
            parents=parents,
            counts=counts,
            stats=stats,
            tools=tool_versions("pillow", "pyarrow", "av"),
            exclude=[".work/*"],
            known=tar_hashes(work),
            started=started,
        )
        shutil.rmtree(work)
        return manifest


def recipe_of(cfg: BuildBase, workspace: Path) -> dict[str, Any]:
    """The config as the manifest keeps it: input files by name and content, not by where they lie.

    Raises:
        InputError: when an input file is missing.
    """
    recipe = cfg.model_dump(mode="json")
    files = [workspace / path for path in recipe.get("files", ())]
    missing = next((path for path in files if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"build {cfg.name}: files: {missing} does not exist")
    if "files" in recipe:
        recipe["files"] = [{"name": path.name, "sha256": sha256_of(path)} for path in files]
    if "media_root" in recipe:
        recipe["media_root"] = recipe["media_root"] is not None  # where it lies is not what it holds
    recipe["version"] = builder_class(cfg).version()
    return recipe


def work_folder(folder: Path, digest: str) -> Path:
    """The state of an unfinished build; that of another recipe or other parents is thrown away."""
    work = folder / ".work"
    marker = work / "for.json"
    if not marker.is_file() or marker.read_text() != digest:
        for path in folder.iterdir():
            if path.name == ".lock":
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        work.mkdir()
        write_atomic(marker, digest.encode())
    return work


def _prepare(cfg: BuildBase, workspace: Path, work: Path) -> Prepared:
    """Write the builder's tables, or find them written."""
    path = work / "prepared.json"
    if path.is_file():
        return Prepared(**json.loads(path.read_text()))
    prepared = builder_class(cfg).prepare(cfg, workspace, work)
    write_atomic(path, json.dumps(asdict(prepared)).encode())
    return prepared


def _build_all(workers: Workers, builder: Builder[Any], folder: Path, progress: Progress) -> None:
    """Wave after wave, until the wanted number is kept or nothing is left to draw."""
    after: Run | None = None
    wanted = None if builder.cfg.count == "all" else int(builder.cfg.count)
    kept = 0
    progress.start(f"build {builder.cfg.name}", wanted)
    with workers:
        while wanted is None or kept < wanted:
            left = builder.limit if wanted is None else wanted - kept
            runs = plan_runs(
                builder.sizes,
                builder.order.size,
                builder.passes,
                after=after,
                count=left,
                per_shard=builder.cfg.samples_per_shard,
            )
            made = 0
            for run in workers.write_all(runs, progress):
                after = run if after is None or run.shard > after.shard else after
                made += run.count
                kept += count_index(folder / f"{shard_name(run.shard)}.parquet").kept
            if wanted is None or made == 0:
                break
    progress.finish(f"{kept} samples")
    if wanted is not None and kept < wanted:
        raise InputError(
            f"build {builder.cfg.name}: count: {wanted} samples wanted, but the parents are enough for {kept}; "
            "lower it, raise max_uses, or say count: all"
        )


def _indexes(folder: Path) -> list[Path]:
    return sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9].parquet"))


def _check_budget(cfg: BuildBase, counts: Counts) -> None:
    others = sum(counts.dropped.get(reason, 0) for reason in _HARMLESS)
    dropped = counts.seen - counts.kept - others
    if counts.kept == 0:
        reasons = ", ".join(f"{reason} {number}" for reason, number in counts.dropped.items()) or "no parents"
        raise InputError(f"build {cfg.name}: not one sample was kept ({reasons})")
    if dropped > cfg.max_drop_fraction * (counts.seen - others):
        worst = max(sorted(counts.dropped.keys() - set(_HARMLESS)), key=lambda reason: counts.dropped[reason])
        raise InputError(
            f"build {cfg.name}: {dropped} of {counts.seen - others} were dropped, mostly as {worst}; that is more "
            f"than max_drop_fraction {cfg.max_drop_fraction}: see the reasons with -v, or raise it"
        )
