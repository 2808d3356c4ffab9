"""New versions of sources, shards and samples without what was retracted, and a proof that the bytes are gone.

A shard with a retracted sample is written anew without it; its row becomes a drop with the reason `tombstoned`, without
caption, place and hash of the stored bytes. When metadata go too, nothing is left of it and of the source's row but
ids, licence and the picture's hash as fetched (`erasure.py` says what and why). Everything behind it is sealed again,
so the chain of digests is whole; each new manifest names the digest it replaces. A tokenizer that learned from the
captions keeps its words, for it holds pieces of words of a whole corpus and no caption; only its parents are named
anew. What old plans need to stay readable is kept under `retired/`: ids by position, no text and no pixels.

    retired/samples/NAME/DIGEST/00000.parquet     sample_id, decision, position, licence
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from filelock import FileLock

from owl3.cards.chain import artifact_folder
from owl3.cards.index import drop_index
from owl3.cards.rewrite import Rewriter
from owl3.cards.said import Said
from owl3.errors import CheckFailed, InputError
from owl3.manifest import MANIFEST_NAME, Counts, Manifest, Parent, read_manifest, write_manifest
from owl3.shards import is_table, iter_samples, write_table
from owl3.storage import link, partial_path

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Purged:
    """One artifact that was made anew.

    Attributes:
        removed: Samples that lost their bytes here; 0 when only its parents changed.
    """

    kind: str
    name: str
    old_digest: str
    new_digest: str
    removed: int
    shards: tuple[str, ...]


@dataclass
class _State:
    """What is to go, and what was made anew. Everything else is read from the disk, so a killed purge goes on."""

    workspace: Path
    work: Rewriter
    done: list[Purged] = field(default_factory=list)


def purge(workspace: Path, ids: Collection[str], said: Said | None = None) -> list[Purged]:
    """Make every artifact that holds a retracted sample anew, without its bytes; safe to kill and to repeat.

    Args:
        said: What the ledger says of them, which is cleared too, in sources and evidence as in shards; None leaves it
            where it is.

    Raises:
        CheckFailed: bytes of a retracted sample are still there afterwards.
        InputError: a file to be made anew is a link to one elsewhere.
    """
    texts = frozenset() if said is None else frozenset(said.texts)
    state = _State(workspace, Rewriter(workspace, frozenset(ids), clears=said is not None, texts=texts))
    kinds = (*(("source",) if said is not None else ()), "shards", "tokenizer", "samples")
    with FileLock(workspace / ".purge.lock"):
        for kind in kinds:  # parents before children
            for folder in _in_order(workspace, kind):
                _remake(state, folder)
        remaining = find_bytes(workspace, state.work.ids)
    if remaining:
        raise CheckFailed(f"{remaining[0]}: still holds a retracted sample after the purge ({len(remaining)} in all)")
    return state.done


def _in_order(workspace: Path, kind: str) -> Iterator[Path]:
    """Finished artifacts, parents before children; a replacement that a kill interrupted is finished first."""
    root = artifact_folder(workspace, kind, "x").parent
    for aside in sorted(root.glob(".*.replaced")):
        _finish_exchange(root / aside.name[1 : -len(".replaced")])
    found = [path.parent for path in sorted(root.glob(f"*/{MANIFEST_NAME}")) if not path.parent.name.startswith(".")]
    waiting = {folder.name: read_manifest(folder) for folder in found}  # a hidden folder is what a kill left behind
    while waiting:
        ready = [
            name
            for name, manifest in waiting.items()
            if not any(parent.kind == kind and parent.name in waiting.keys() - {name} for parent in manifest.parents)
        ]
        if not ready:
            raise InputError(
                f"{root}: {', '.join(waiting)} name each other as parents; `owl3 audit` says which is false"
            )
        for name in ready:
            del waiting[name]
            yield root / name


def _remake(state: _State, folder: Path) -> None:
    manifest = read_manifest(folder)
    tables = sorted(Path(entry.path).stem for entry in manifest.files if is_table(entry.path))
    parents = [_present(state.workspace, parent) for parent in manifest.parents]
    moved = parents != list(manifest.parents)
    changes = state.work.changes(folder, [entry.path for entry in manifest.files], manifest.kind, moved=moved)
    if not changes and not moved:
        return
    _refuse_links(folder, changes)
    fresh = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for entry in manifest.files:
        if entry.path not in changes:
            (fresh / entry.path).parent.mkdir(parents=True, exist_ok=True)
            link(folder / entry.path, fresh / entry.path)
    removed = state.work.rewrite(folder, fresh, changes, manifest.kind)
    new = _seal(fresh, manifest, parents, tables, removed)
    if manifest.kind == "samples":
        _retire(state.workspace, folder, manifest, tables)
    drop_index(state.workspace, manifest.kind, folder.name)
    _exchange(folder, fresh)
    shards = tuple(sorted({Path(name).stem[:5] for name in changes if is_table(name)}))
    state.done.append(Purged(manifest.kind, manifest.name, manifest.digest, new.digest, removed, shards))
    logger.info("%s %s: %d samples taken out, digest %s", manifest.kind, manifest.name, removed, new.digest[:12])


def _refuse_links(folder: Path, changes: Collection[str]) -> None:
    """What a link leads to would stay behind when something else takes the link's place."""
    for path in (folder, *(folder / name for name in sorted(changes))):
        if path.is_symlink():
            raise InputError(
                f"{path}: leads to {path.resolve()}, where a purge would leave everything; put that in its place first"
            )


def _present(workspace: Path, parent: Parent) -> Parent:
    """A parent as it is now, when a purge replaced the version that its child was made from."""
    folder = artifact_folder(workspace, parent.kind, parent.name)
    if not (folder / MANIFEST_NAME).is_file():
        return parent
    manifest = read_manifest(folder)
    replaced = manifest.stats.get("retraction", {}).get("replaces", [])
    return manifest.as_parent() if parent.digest in replaced else parent


def _seal(fresh: Path, old: Manifest, parents: list[Parent], tables: list[str], removed: int) -> Manifest:
    """Write the new manifest: counts from the tables, new digests of parents, and which digests it replaces."""
    counted = Counts.total(_count(fresh / f"{shard}.parquet") for shard in tables) if tables else old.counts
    stats = old.stats | _totals([fresh / f"{shard}.parquet" for shard in tables], old.stats)
    before = old.stats.get("retraction", {})
    stats["retraction"] = {
        "replaces": [*before.get("replaces", []), old.digest],
        "removed": removed + int(before.get("removed", 0)),
    }
    return write_manifest(
        fresh,
        kind=old.kind,
        name=old.name,
        counts=counted,
        recipe=old.recipe,
        parents=parents,
        stats=stats,
        tools=old.tools,
        volatile=[entry.path for entry in old.files if entry.volatile],
    )


def _count(table: Path) -> Counts:
    rows = pq.read_table(table, columns=["decision", "reason"]).to_pylist()
    dropped: dict[str, int] = {}
    for row in rows:
        if row["decision"] == "dropped":
            dropped[row["reason"]] = dropped.get(row["reason"], 0) + 1
    return Counts(seen=len(rows), kept=len(rows) - sum(dropped.values()), dropped=dropped)


def _totals(tables: list[Path], stats: Mapping[str, Any]) -> dict[str, int]:
    """Sums of a sample set that its builder put into the manifest, once more."""
    names = [name for name in ("text_tokens", "trained_tokens", "images") if name in stats]
    if not names:
        return {}
    kept = [
        row
        for table in tables
        for row in pq.read_table(table, columns=["decision", *names]).to_pylist()
        if row["decision"] == "kept"
    ]
    totals = {name: sum(row[name] or 0 for row in kept) for name in names}
    return totals | ({"samples": len(kept)} if "samples" in stats else {})


def _retire(workspace: Path, folder: Path, manifest: Manifest, tables: list[str]) -> None:
    """Keep ids by position, so that plans of the old version can still be asked what they held."""
    target = workspace / "retired" / "samples" / folder.name / manifest.digest
    if target.exists():
        return
    aside = partial_path(target)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for shard in tables:
        rows = pq.read_table(folder / f"{shard}.parquet", columns=["sample_id", "decision", "position", "licence"])
        write_table(aside / f"{shard}.parquet", rows)
    aside.replace(target)


def _exchange(folder: Path, fresh: Path) -> None:
    """Put `fresh` into the place of `folder`. A kill in between is mended by the next purge."""
    old = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old)


def _finish_exchange(folder: Path) -> None:
    fresh, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.replaced")
    if not folder.exists():
        (fresh if (fresh / MANIFEST_NAME).is_file() else old).rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def find_bytes(workspace: Path, ids: Collection[str]) -> list[str]:
    """Read every tar of the workspace: members whose key is a retracted id. The proof of a purge."""
    wanted = frozenset(ids)
    return [
        f"{tar.relative_to(workspace)} {key}"
        for tar in sorted([*workspace.glob("shards/*/*.tar"), *workspace.glob("samples/*/*.tar")])
        for key, _ in iter_samples(tar)
        if key in wanted
    ]


def find_pictures(workspace: Path, holds: Callable[[bytes], bool]) -> list[str]:
    """Members of any tar whose bytes `holds` recognises: the same proof for somebody who brings the picture."""
    return [
        f"{tar.relative_to(workspace)} {key}.{extension}"
        for tar in sorted([*workspace.glob("shards/*/*.tar"), *workspace.glob("samples/*/*.tar")])
        for key, members in iter_samples(tar)
        for extension, data in members.items()
        if holds(data)
    ]
