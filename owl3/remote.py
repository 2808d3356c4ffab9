"""A workspace in object storage: worked on in a local folder, fetched before and published as artifacts finish.

Everything that a command reads and writes are local files; DuckDB, tars and checkpoints want them. So a workspace URL
(`s3://bucket/workspace`) has a staging folder on this machine, and this module keeps the two alike:

    fetch      what is new in the store comes here: files first, each checked against its digest, the manifest last
    publish    what is finished here goes there: files first, the manifest last, so what is seen there is whole

Both do only what is missing, so they can be killed and run again. What was taken away on purpose and noted under
`retired/` (withdrawn cards, removed runs) is taken away there too, and does not come back from there. Files that belong
to no artifact (tombstones, work begun, checkpoints of a running stage) travel too, listed with their digests in
`_loose.json`, which is written last.
Its files are asked for by `objectstore.py`.
"""

import hashlib
import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from owl3.config import Config
from owl3.errors import ConfigError, InputError
from owl3.manifest import MANIFEST_NAME, Manifest
from owl3.objectstore import ObjectStore
from owl3.secrecy import tells_secret
from owl3.storage import atomic_writer, sha256_of, stays_inside, write_atomic

logger = logging.getLogger(__name__)

STAGING = "OWL3_STAGING"
"""Where staging folders lie; default: ~/.cache/owl3/staging."""
_SYNCED = ".synced.json"
_SENT = ".sent.jsonl"
_LOOSE = "_loose.json"
_NEVER = re.compile(r"(^|/)(\.[^/]*|_work/attempts/.*|logs/.*)$|/\.[^/]+/")
_EVERY_S = 2.0


class Moved(Config):
    """What a fetch or publication moved."""

    artifacts: int = 0
    files: int = 0
    bytes: int = 0


def is_url(path: Path | str) -> bool:
    """Does this name a workspace in a store? `Path` has made one slash of two."""
    return re.match(r"^[a-z][a-z0-9+.-]+:/+", str(path)) is not None


def as_url(path: Path | str) -> str:
    """The URL with its two slashes again.

    Raises:
        ConfigError: it holds credentials; the message does not.
    """
    scheme, _, rest = str(path).partition(":")
    url = f"{scheme}://{rest.lstrip('/')}".rstrip("/")
    if tells_secret(url):
        raise ConfigError(
            f"--workspace {scheme}://…: credentials do not belong into a URL; set them in the environment"
        )
    return url


def staging_folder(url: str) -> Path:
    """The local folder that stands for a URL.

    Raises:
        ConfigError: this user has no home folder, and `STAGING` is not set.
    """
    try:
        root = Path(os.environ.get(STAGING) or Path.home() / ".cache" / "owl3" / "staging")
    except RuntimeError as error:
        raise ConfigError(f"{url}: this user has no home folder; set {STAGING} to a folder to stage it in") from error
    return root / f"{re.sub(r'[^A-Za-z0-9]+', '-', url)}-{hashlib.sha256(url.encode()).hexdigest()[:8]}"


@contextmanager
def staged(url: str) -> Iterator[Path]:
    """A local folder that holds the workspace while the block runs; what finishes in it is published at once.

    Raises:
        InputError: the store can't be reached, or somebody else has changed the same artifact.
        ConfigError: there is no folder to stage it in.
    """
    folder = staging_folder(url)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{url}: can't be staged in {folder} ({error}); set {STAGING} to a folder that can"
        ) from error
    store = Store(url)
    store.fetch(folder)
    ended = threading.Event()

    def publish() -> None:
        while not ended.wait(_EVERY_S):
            try:
                store.publish(folder, loose=False)
            except (OSError, InputError) as error:  # told at the end, when it is tried once more
                logger.warning("publishing to %s: %s", url, error)

    publisher = threading.Thread(target=publish, name="publisher", daemon=True)
    publisher.start()
    try:
        yield folder
    finally:
        ended.set()
        publisher.join()
        store.publish(folder)


@contextmanager
def opened(workspace: Path) -> Iterator[Path]:
    """The folder to work in: the workspace itself or, for a URL, its staging folder, kept alike with the store."""
    if not is_url(workspace):
        yield workspace
        return
    with staged(as_url(workspace)) as folder:
        yield folder


class Store:
    """A workspace behind a URL that fsspec understands."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._store = ObjectStore(url)

    def fetch(self, folder: Path) -> Moved:
        """Bring everything here that is in the store and not here, or newer there.

        Raises:
            InputError: an artifact was changed in both places, or a file does not match its digest.
        """
        synced, retired = _read_synced(folder), _retired(folder)
        moved = Moved()
        for name in self._store.names():
            place = name.removesuffix(f"/{MANIFEST_NAME}")
            if place == name or f"{place}/".startswith(retired):
                continue
            self._check_inside(place)
            there = self._manifest(name)
            here = _local(folder / place)
            if here is not None and here.digest == there.digest:
                synced[place] = there.digest
                continue
            if here is not None and here.digest != synced.get(place):
                if synced.get(place) == there.digest:
                    continue  # changed here, not there: published later
                raise InputError(
                    f"{self.url}/{place}: changed here and there; remove one of the two ({folder / place})"
                )
            moved = _add(moved, self._fetch_artifact(place, there, folder / place))
            synced[place] = there.digest
            _write_synced(folder, synced)
        moved = _add(moved, self._fetch_loose(folder))
        _write_synced(folder, synced)
        return moved

    def publish(self, folder: Path, *, loose: bool = True) -> Moved:
        """Send everything there that is finished here; with `loose`, files of no artifact too.

        Raises:
            InputError: somebody else has published another version of an artifact since it was fetched.
        """
        synced = _read_synced(folder)
        moved = Moved()
        covered: set[Path] = set()
        for path in sorted(folder.rglob(MANIFEST_NAME)):
            place = path.parent.relative_to(folder).as_posix()
            manifest = _local(path.parent)
            if manifest is None:
                continue
            covered |= {path, *(path.parent / entry.path for entry in manifest.files)}
            if synced.get(place) != manifest.digest:
                moved = _add(moved, self._publish_artifact(place, manifest, folder / place, synced.get(place)))
                synced[place] = manifest.digest
                _write_synced(folder, synced)
        self._remove_retired(folder, synced)
        return _add(moved, self._publish_loose(folder, covered)) if loose else moved

    def _remove_retired(self, folder: Path, synced: dict[str, str]) -> None:
        """Take away there what was taken away here."""
        retired = _retired(folder)
        gone = [place for place in synced if f"{place}/".startswith(retired)]
        if not gone:
            return
        for name in self._store.names():
            if name.startswith(retired):
                self._store.remove(name)
        for place in gone:
            del synced[place]
        _write_synced(folder, synced)

    def _fetch_artifact(self, place: str, manifest: Manifest, target: Path) -> Moved:
        files = size = 0
        (target / MANIFEST_NAME).unlink(missing_ok=True)  # until it is whole again
        for entry in manifest.files:
            if self._store.bring(f"{place}/{entry.path}", target / entry.path, entry.sha256, entry.bytes):
                files, size = files + 1, size + entry.bytes
        write_atomic(target / MANIFEST_NAME, self._store.read(f"{place}/{MANIFEST_NAME}"))
        return Moved(artifacts=1, files=files, bytes=size)

    def _publish_artifact(self, place: str, manifest: Manifest, source: Path, expected: str | None) -> Moved:
        name = f"{place}/{MANIFEST_NAME}"
        there = self._manifest(name) if self._store.exists(name) else None
        if there is not None and there.digest not in (expected, manifest.digest):
            raise InputError(f"{self.url}/{place}: somebody else published another version; run the command again")
        known = {entry.path: entry.sha256 for entry in there.files} if there else {}
        files = size = 0
        with _Sent(source / _SENT) as sent:
            for entry in manifest.files:
                if entry.sha256 in (known.get(entry.path), sent.get(entry.path)):
                    continue  # there from the version before, or from a publication that was killed
                self._store.send(source / entry.path, f"{place}/{entry.path}")
                sent.add(entry.path, entry.sha256)
                files, size = files + 1, size + entry.bytes
        self._store.send(source / MANIFEST_NAME, name)
        (source / _SENT).unlink()
        for path in sorted(known.keys() - {entry.path for entry in manifest.files}):
            self._store.remove(f"{place}/{path}")
        return Moved(artifacts=1, files=files, bytes=size)

    def _fetch_loose(self, folder: Path) -> Moved:
        files = size = 0
        listed: dict[str, dict[str, Any]] = json.loads(self._store.read(_LOOSE)) if self._store.exists(_LOOSE) else {}
        retired = _retired(folder)
        for name, entry in listed.items():
            if name.startswith(retired):
                continue
            self._check_inside(name)
            if not (folder / name).is_file():  # what is here is never older: only we write it
                files += self._store.bring(name, folder / name, entry["sha256"], entry["bytes"])
                size += entry["bytes"]
        return Moved(files=files, bytes=size)

    def _publish_loose(self, folder: Path, covered: set[Path]) -> Moved:
        listed: dict[str, dict[str, Any]] = json.loads(self._store.read(_LOOSE)) if self._store.exists(_LOOSE) else {}
        wanted: dict[str, dict[str, Any]] = {}
        files = size = 0
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and path not in covered):
            name = path.relative_to(folder).as_posix()
            if _NEVER.search(name):
                continue
            entry: dict[str, Any] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
            wanted[name] = entry
            if listed.get(name) != entry:
                self._store.send(path, name)
                files, size = files + 1, size + entry["bytes"]
        if wanted != listed:
            self._store.write(_LOOSE, json.dumps(wanted).encode())
        for name in sorted(listed.keys() - wanted.keys()):
            if self._store.exists(name) and not (folder / name).is_file():
                self._store.remove(name)
        return Moved(files=files, bytes=size)

    def _manifest(self, name: str) -> Manifest:
        try:
            return Manifest.model_validate_json(self._store.read(name))
        except ValidationError as error:
            raise InputError(f"{self.url}/{name}: not a manifest of ours: {error.errors()[0]['msg']}") from error

    def _check_inside(self, name: str) -> None:
        """Whoever may write to the store must not write outside of the staging folder."""
        if not stays_inside(name):
            raise InputError(f"{self.url}: holds a file called {name!r}, which leads out of the workspace; remove it")


class _Sent:
    """Which files of an artifact have arrived, noted one by one, so that a killed publication goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, str] = {}

    def __enter__(self) -> "_Sent":
        lines = self._path.read_text("utf-8").splitlines() if self._path.is_file() else []
        self._known = dict(json.loads(line) for line in lines if line.endswith("]"))  # the last may be cut off
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def get(self, path: str) -> str | None:
        """The digest of what was sent under this path."""
        return self._known.get(path)

    def add(self, path: str, sha256: str) -> None:
        """Note that a file has arrived."""
        self._file.write(json.dumps([path, sha256]) + "\n")
        self._file.flush()


def _retired(folder: Path) -> tuple[str, ...]:
    """Folders that a withdrawal or a removal took away, each ending with a slash; one that was made again is none."""
    cards = [f"datacards/{note.parent.name}/{note.stem}/" for note in folder.glob("retired/cards/*/*.json")]
    runs = [f"{kind}/{note.stem}/" for note in folder.glob("retired/runs/*.json") for kind in ("runs", "plans")]
    return tuple(place for place in sorted([*cards, *runs]) if not (folder / place).exists())


def _local(folder: Path) -> Manifest | None:
    path = folder / MANIFEST_NAME
    return Manifest.model_validate_json(path.read_bytes()) if path.is_file() else None


def _read_synced(folder: Path) -> dict[str, str]:
    """The digest of every artifact when the two places were last alike."""
    path = folder / _SYNCED
    found: dict[str, str] = json.loads(path.read_bytes()) if path.is_file() else {}
    return found


def _write_synced(folder: Path, synced: dict[str, str]) -> None:
    with atomic_writer(folder / _SYNCED) as handle:
        handle.write(json.dumps(synced, indent=0, sort_keys=True).encode())


def _add(one: Moved, other: Moved) -> Moved:
    return Moved(
        artifacts=one.artifacts + other.artifacts, files=one.files + other.files, bytes=one.bytes + other.bytes
    )
