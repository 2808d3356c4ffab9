"""Carrying a takedown through: bytes, words, copies of both, and the proof that nothing is left.

    owl3 retract --url URL --reason … --yes --purge                     bytes and words
    owl3 retract --url URL --reason … --yes --purge --keep-metadata     bytes alone

A request is often about a caption or a URL that names somebody, so what was said of a row goes with its bytes, unless
whoever answers for the corpus decides to keep it. In this order, each of which may be killed and done again:

    tombstones.parquet          says what was asked for as a hash
    sources, shards, samples    are made anew without it, and everything behind them is sealed again (`cards/purge.py`)
    indexes/                    loses the samples' vectors and words
    datacards/ report/          show captions and thumbnails: stale cards of the workspace are withdrawn with a note,
                                the report is removed; a command renders each again
    rights/proposal.txt         loses its lines about it
    every file                  is looked through (`cards/residue.py`); what still says something is named
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from owl3.cards import said as words
from owl3.cards.chain import FOLDERS, artifact_folder
from owl3.cards.erasure import clear_tombstones
from owl3.cards.purge import Purged, purge
from owl3.cards.residue import Finder, find
from owl3.cards.said import Said
from owl3.curate.embed import forget
from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, now, read_manifest
from owl3.storage import write_atomic

OURS = (*dict.fromkeys(FOLDERS.values()), "index", "indexes", "retired", "report", "datacards", "rights", "logs")
"""Folders of a workspace in which nobody but owl3 writes; in others lie dumps, corpora and notes of people."""


@dataclass(frozen=True)
class Takedown:
    """What was done.

    Attributes:
        withdrawn: Cards and pages that are gone because they showed it.
        left: Files that still say something, and that are ours: a reason to look, and to run it again;
        others: those that are not ours to change: dumps, notes, cards elsewhere.
        texts: How many words were looked for in every file; None when metadata were kept.
    """

    purged: tuple[Purged, ...]
    withdrawn: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    texts: int | None = None


def take_down(
    workspace: Path, ids: Collection[str], *, keep_metadata: bool = False, datacards_dir: Path | None = None
) -> Takedown:
    """Take samples out of everything that a workspace holds.

    Args:
        ids: Of curated rows, and of all that was built from them.
        keep_metadata: Let URLs and sources stay as they are.
        datacards_dir: Cards outside of the workspace are looked through, too; they are never removed.

    Raises:
        CheckFailed: bytes of a retracted sample are still there afterwards.
    """
    if keep_metadata:
        purged = purge(workspace, ids)
        forget(workspace, ids)
        return Takedown(tuple(purged))
    said = words.remember(workspace, pa.array(sorted(ids), pa.string()))
    clear_tombstones(
        workspace, frozenset(ids), said.rows
    )  # first: by them the same request finds its rows when it is made again
    purged = purge(workspace, ids, said)
    forget(workspace, ids)
    withdrawn = [*_withdraw_cards(workspace), *_remove_report(workspace)]
    _clear_proposal(workspace, said)
    found = find(workspace, said, () if datacards_dir is None else (datacards_dir,))
    ours = [path for path in found if path.partition("/")[0] in OURS or ("/" not in path and path.endswith(".parquet"))]
    if not ours:  # else the same request looks for the same words again
        words.forget(workspace)
    return Takedown(
        purged=tuple(purged),
        withdrawn=tuple(withdrawn),
        left=tuple(ours),
        others=tuple(path for path in found if path not in ours),
        texts=len(said.texts),
    )


def _withdraw_cards(workspace: Path) -> list[str]:
    """Remove rendered cards of the workspace that tell of artifacts as they are no more; a note keeps their digests."""
    gone = []
    for path in sorted((workspace / "datacards").glob(f"*/*/{MANIFEST_NAME}")):
        manifest = read_manifest(path.parent)
        if any(_is_replaced(workspace, parent.kind, parent.name, parent.digest) for parent in manifest.parents):
            note = {"card": manifest.name, "digest": manifest.digest, "withdrawn": now(), "made": manifest.ended}
            name = path.parent.relative_to(workspace / "datacards").as_posix()
            target = workspace / "retired" / "cards" / f"{name}.json"
            write_atomic(target, json.dumps(note, indent=1).encode() + b"\n")
            shutil.rmtree(path.parent)
            gone.append(f"datacards/{name}")
    return gone


def _is_replaced(workspace: Path, kind: str, name: str, digest: str) -> bool:
    """Whether a purge made another version of an artifact since."""
    try:
        present = read_manifest(artifact_folder(workspace, kind, name))
    except InputError:  # gone, or of a kind that no purge makes anew
        return False
    return digest in present.stats.get("retraction", {}).get("replaces", [])


def _remove_report(workspace: Path) -> list[str]:
    """The pages are made of captions and thumbnails; `owl3 report` makes them again."""
    if not (workspace / "report").is_dir():
        return []
    shutil.rmtree(workspace / "report")
    return ["report"]


def _clear_proposal(workspace: Path, said: Said) -> None:
    """Of what `owl3 rights --recheck` proposed, leave what is still to be done."""
    path = workspace / "rights" / "proposal.txt"
    if path.is_file():
        finder = Finder(said)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_atomic(path, "".join(line for line in lines if not finder.holds(line.rstrip("\n"))).encode())
