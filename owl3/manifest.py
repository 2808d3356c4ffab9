"""The manifest: a folder that has one is done, and its digest says what is in it.

The digest covers kind, name, parents, recipe, counts, files, statistics and tool versions: everything but times, hosts
and files marked volatile. Parents' digests chain it back to the source, so one changed byte anywhere shows.
"""

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from owl3 import __version__
from owl3.config import Config, canonical_json, digest_of, plain
from owl3.errors import InputError, StaleError
from owl3.storage import files_under, sha256_of, stays_inside, write_atomic

MANIFEST_NAME = "manifest.json"
ArtifactKind = Literal[
    "source", "tokenizer", "shards", "samples", "plan", "run", "model", "checkpoint", "eval", "card", "index"
]


class Counts(Config):
    """What became of everything that came in: seen = kept + Σ dropped."""

    seen: int = Field(ge=0)
    kept: int = Field(ge=0)
    dropped: dict[str, int] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_conserved(self) -> Self:
        if self.seen != self.kept + sum(self.dropped.values()):
            raise ValueError(f"not conserved: seen {self.seen} != kept {self.kept} + dropped {self.dropped}")
        return self

    @classmethod
    def total(cls, parts: Iterable["Counts"]) -> "Counts":
        """Add up counts, reason by reason, with reasons in alphabetical order."""
        seen = kept = 0
        dropped: dict[str, int] = {}
        for part in parts:
            seen += part.seen
            kept += part.kept
            for reason, count in part.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        return cls(seen=seen, kept=kept, dropped=dict(sorted(dropped.items())))


class Parent(Config):
    """The artifact that this one was made from."""

    kind: str
    name: str
    digest: str


class FileEntry(Config):
    """A file of the artifact. A volatile one holds times or hosts: listed, but outside the digest."""

    path: str
    bytes: int = Field(ge=0)
    sha256: str
    volatile: bool = False

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, path: str) -> str:
        if not stays_inside(path):
            raise ValueError(f"file {path!r} leads out of the artifact's folder")
        return path


class Manifest(Config):
    """See the head of this file."""

    kind: ArtifactKind
    name: str
    parents: tuple[Parent, ...] = ()
    recipe: dict[str, Any] = Field(default_factory=dict)
    counts: Counts
    files: tuple[FileEntry, ...] = ()
    stats: dict[str, Any] = Field(default_factory=dict)
    tools: dict[str, str] = Field(default_factory=dict)
    digest: str = ""
    started: str = ""
    ended: str = ""
    host: str = ""

    def compute_digest(self) -> str:
        """Hash everything that the artifact's content depends on."""
        data = self.model_dump(mode="json", exclude={"digest", "started", "ended", "host", "files"})
        data["files"] = [[entry.path, entry.bytes, entry.sha256] for entry in self.files if not entry.volatile]
        return digest_of(data)

    def as_parent(self) -> Parent:
        """How a child refers to it."""
        return Parent(kind=self.kind, name=self.name, digest=self.digest)


def now() -> str:
    """The present time as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def tool_versions(*packages: str) -> dict[str, str]:
    """Versions of owl3, Python and the packages that shaped the bytes of an artifact."""
    versions = {"owl3": __version__, "python": platform.python_version()}
    return versions | {package: metadata.version(package) for package in packages}


def write_manifest(
    folder: Path,
    *,
    kind: ArtifactKind,
    name: str,
    counts: Counts,
    recipe: Any = None,
    parents: Sequence[Manifest | Parent] = (),
    stats: Mapping[str, Any] | None = None,
    tools: Mapping[str, str] | None = None,
    volatile: Sequence[str] = (),
    exclude: Sequence[str] = (),
    known: Mapping[str, str] | None = None,
    started: str = "",
) -> Manifest:
    """Hash the folder's files and write its manifest, last and atomically.

    Args:
        folder: The artifact. Files beginning with a dot are not part of it.
        volatile: Glob patterns (relative paths, `*` also matches `/`) of files that hold times or hosts.
        exclude: Glob patterns of files that are not part of the artifact (child artifacts below it).
        known: Relative path → sha256 of files that were hashed while they were written; they are not read again.

    Returns:
        The manifest, with its digest. Conservation has been checked by `Counts`.
    """
    files = []
    for path in files_under(folder):
        relative = path.relative_to(folder).as_posix()
        if relative == MANIFEST_NAME or any(fnmatchcase(relative, pattern) for pattern in exclude):
            continue
        is_volatile = any(fnmatchcase(relative, pattern) for pattern in volatile)
        sha256 = (known or {}).get(relative) or sha256_of(path)
        files.append(FileEntry(path=relative, bytes=path.stat().st_size, sha256=sha256, volatile=is_volatile))
    manifest = Manifest(
        kind=kind,
        name=name,
        parents=tuple(p.as_parent() if isinstance(p, Manifest) else p for p in parents),
        recipe=plain(recipe) if recipe is not None else {},
        counts=counts,
        files=tuple(files),
        stats=plain(dict(stats or {})),
        tools=dict(tools) if tools is not None else tool_versions(),
        started=started or now(),
        ended=now(),
        host=platform.node(),
    )
    manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
    text = json.dumps(manifest.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False)
    write_atomic(folder / MANIFEST_NAME, text.encode("utf-8") + b"\n")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Read a finished artifact's manifest and check it against its own digest.

    Raises:
        InputError: when there is none (the artifact is not finished), or it was edited.
    """
    path = folder / MANIFEST_NAME
    if not folder.is_dir():
        there = sorted(found.parent.name for found in folder.parent.glob(f"*/{MANIFEST_NAME}"))
        raise InputError(f"{folder}: no such artifact; there are: {', '.join(there) or 'none'}")
    if not path.is_file():
        raise InputError(f"{folder}: no {MANIFEST_NAME}, so this artifact is not finished; run its command again")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: not a manifest of owl3 {__version__}: {key and key + ': '}{first['msg']}") from error
    if manifest.compute_digest() != manifest.digest:
        raise InputError(f"{path}: its content does not match its digest {manifest.digest[:12]}; it was edited")
    return manifest


def find_current(folder: Path, recipe: Any, parents: Sequence[Manifest | Parent]) -> Manifest | None:
    """Return the manifest when this very artifact is done already, None when it is still to be made.

    Raises:
        StaleError: when another recipe or other parents made what lies there.
    """
    if not (folder / MANIFEST_NAME).is_file():
        return None
    manifest = read_manifest(folder)
    wanted = tuple(p.as_parent() if isinstance(p, Manifest) else p for p in parents)
    if canonical_json(manifest.recipe) != canonical_json(plain(recipe)):
        changed = [k for k in {*manifest.recipe, *plain(recipe)} if manifest.recipe.get(k) != plain(recipe).get(k)]
        raise StaleError(
            f"{folder}: was made by another recipe (differs in {', '.join(sorted(changed))}); "
            "choose another name, or remove the folder to make it again"
        )
    if manifest.parents != wanted:
        raise StaleError(f"{folder}: was made from other parents; choose another name, or remove the folder")
    return manifest


def verify_files(folder: Path, manifest: Manifest, known: Mapping[str, str] | None = None) -> list[str]:
    """Compare the folder's bytes with its manifest; return one line per difference, none when all is well.

    Args:
        known: Relative path → sha256 of files that were hashed just now; they are not read again.
    """
    findings = []
    for entry in manifest.files:
        path = folder / entry.path
        if not path.is_file():
            findings.append(f"{path}: missing")
        elif path.stat().st_size != entry.bytes:
            findings.append(f"{path}: {path.stat().st_size} bytes, manifest says {entry.bytes}")
        elif ((known or {}).get(entry.path) or sha256_of(path)) != entry.sha256:
            findings.append(f"{path}: content differs from its manifest")
    return findings


def lock_path(folder: Path) -> Path:
    """The lock file that keeps two commands from making one artifact at once (hidden, so no part of the artifact)."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder / ".lock"
