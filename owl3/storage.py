"""Files that appear whole or not at all.

Every artifact is written aside and renamed, so a kill at any moment leaves either the old file or the new one.
"""

import fcntl
import hashlib
import json
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from owl3.errors import InputError
from owl3.stopping import check_stop

_CHUNK_BYTES = 1 << 20
_POLL_S = 0.1


def partial_path(path: Path) -> Path:
    """Where `path` is written before it is complete. The name is fixed, so a re-run overwrites a killed one's rest."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def atomic_writer(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path`; on success it is flushed to disk and takes `path`'s place, on error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = partial_path(path)
    try:
        with aside.open("wb", buffering=_CHUNK_BYTES) as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk doesn't say what was being written
        raise


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`, all or nothing."""
    with atomic_writer(path) as handle:
        handle.write(data)


def read_json(path: Path) -> Any:
    """The plain data of a JSON file that a program wrote.

    Raises:
        InputError: it was damaged or cut off.
    """
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(
            f"{path}: not readable as JSON, so it was damaged or cut off ({error}); bring it back, or make it again"
        ) from error


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside `path`; on success it takes `path`'s place, on error it is removed.

    Raises:
        InputError: `path` exists already; the caller decides beforehand what that means.
    """
    if path.exists():
        raise InputError(f"{path}: exists already; remove it or choose another name")
    aside = partial_path(path)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


@contextmanager
def range_lock(path: Path, first: int, last: int, *, wait: bool = True) -> Iterator[None]:
    """Hold the numbers `first` to `last` (half-open) of what `path` stands for; others may hold other numbers.

    A lock of the open file, so threads exclude each other as processes do, and a killed holder's lock is gone with it.

    Raises:
        InputError: with `wait` off, when somebody holds one of them.
        Stopped: what waits for them shall stop.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        wanted = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, first, last - first, 0)
        while not _is_locked(handle, wanted):
            if not wait:
                raise InputError(
                    f"{path.name.strip('.')} {first}-{last}: another process works on them; wait for it, or take others"
                )
            check_stop()
            time.sleep(_POLL_S)
        yield  # closing the file gives the lock back


def _is_locked(handle: BinaryIO, wanted: bytes) -> bool:
    """Lock a range of an open file, unless somebody holds some of it."""
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        return False
    return True


def stays_inside(name: str) -> bool:
    """Whether a relative path that somebody else wrote down leads to a file below the folder it is put behind."""
    parts = name.split("/")
    return name != "" and not name.startswith("/") and ".." not in parts and "\x00" not in name


def sha256_of(path: Path) -> str:
    """Hash a file without loading it, as 64 hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def copy_exact(source: Path, target: Path) -> str:
    """Copy a file all-or-nothing and return its sha256."""
    digest = hashlib.sha256()
    with source.open("rb") as reader, atomic_writer(target) as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            writer.write(chunk)
    return digest.hexdigest()


def link(source: Path | str, target: Path | str) -> None:
    """A second name for a file that nobody writes in place; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def files_under(folder: Path) -> list[Path]:
    """All complete files below `folder`, sorted by relative path; partial ones and lock files are left out."""
    found = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())
