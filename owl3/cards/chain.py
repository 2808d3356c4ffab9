"""From an artifact back to the sources, digest by digest.

A manifest's digest covers its files and its parents' digests, so whoever trusts one digest can check everything behind
it, with nothing but the files.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from owl3.errors import InputError
from owl3.manifest import Manifest, Parent, read_manifest
from owl3.storage import stays_inside

FOLDERS: dict[str, str] = {
    "source": "sources",
    "tokenizer": "tokenizers",
    "shards": "shards",
    "samples": "samples",
    "plan": "plans",
    "run": "runs",
}
"""Where the artifacts of a kind lie in a workspace; models, checkpoints and evaluations lie below their run."""


def checksums(parents: Iterable[Manifest]) -> bytes:
    """Every file that the artifacts' digests cover, as `sha256sum -c` reads it from within the workspace."""
    return "".join(
        f"{entry.sha256}  {FOLDERS[parent.kind]}/{parent.name}/{entry.path}\n"
        for parent in parents
        for entry in parent.files
        if not entry.volatile
    ).encode()


def artifact_folder(workspace: Path, kind: str, name: str) -> Path:
    """Where an artifact lies.

    Raises:
        InputError: for a kind that has no folder of its own, or a name that leads out of the workspace.
    """
    if kind not in FOLDERS:
        raise InputError(f"{kind} {name}: artifacts of this kind have no folder of their own in a workspace")
    if not stays_inside(name):
        raise InputError(f"{kind} {name}: a name that leads out of the workspace")
    return workspace / FOLDERS[kind] / name


@dataclass(frozen=True, slots=True)
class Link:
    """One step of the walk: what a child says about a parent, and what lies there.

    Attributes:
        stated: Kind, name and digest as the child has them.
        child: "kind name" of the child.
        manifest: What was read, or None with the reason in `problem`.
    """

    stated: Parent
    child: str
    folder: Path | None
    manifest: Manifest | None
    problem: str = ""


def walk(workspace: Path, parents: Iterable[Parent], child: str) -> list[Link]:
    """Follow parents to the sources, breadth first; each artifact once per digest that is claimed for it.

    Nothing is raised for a broken chain: a link says what is wrong with it, and the walk goes on beside it.
    """
    queue = [(parent, child) for parent in parents]
    seen: set[tuple[str, str, str]] = set()
    links: list[Link] = []
    while queue:
        stated, child_name = queue.pop(0)
        identity = (stated.kind, stated.name, stated.digest)
        if identity in seen:
            continue
        seen.add(identity)
        link = _follow(workspace, stated, child_name)
        links.append(link)
        if link.manifest is not None:
            queue += [(parent, f"{stated.kind} {stated.name}") for parent in link.manifest.parents]
    return links


def _follow(workspace: Path, stated: Parent, child: str) -> Link:
    try:
        folder = artifact_folder(workspace, stated.kind, stated.name)
        manifest = read_manifest(folder)
    except InputError as error:
        return Link(stated, child, None, None, str(error))
    if (manifest.kind, manifest.name) != (stated.kind, stated.name):
        problem = f"{folder} holds {manifest.kind} {manifest.name}, not {stated.kind} {stated.name}"
        return Link(stated, child, folder, None, problem)
    if manifest.digest != stated.digest:
        problem = f"digest is {manifest.digest[:16]}, but {child} was made from {stated.digest[:16]}"
        return Link(stated, child, folder, manifest, problem)
    return Link(stated, child, folder, manifest)
