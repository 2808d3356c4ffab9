"""Where a medium that a row names really lies: in a shard set, under a folder, or inside the row itself."""

import errno
import hashlib
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from owl3.build.drafts import Medium, Place, Refused
from owl3.build.importers.record import MediaName
from owl3.build.pool import Pool, medium_of
from owl3.config import digest_of
from owl3.storage import sha256_of

_CLIPS = (".mp4", ".mkv", ".webm", ".avi")
_EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", *_CLIPS)
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class Found:
    """A medium, and what the ledger says of it.

    `parent` is a sample id, or `sha256:…` for a file that is in no shard set. Source and licence are empty when only
    the row could tell them.
    """

    medium: Medium
    parent: str
    source: str = ""
    licence: str = ""


class MediaFinder:
    """Looks media up by URL or sample id among the shard sets, then by path below the folders of `media_root`."""

    def __init__(self, pool: Pool | None, media_roots: Sequence[Path]) -> None:
        self._pool = pool
        self._media_roots = media_roots

    def find(self, media: MediaName) -> Found:
        """Look a medium up.

        Raises:
            Refused: `unsafe_path` or `missing_media`.
        """
        if media.data:
            return Found(Medium(data=media.data), f"sha256:{hashlib.sha256(media.data).hexdigest()}")
        names = [name for name in (media.name, media.other) if name]
        for name in names if self._pool is not None else ():
            assert self._pool is not None
            row = self._pool.find(name)
            if row is not None:
                parent = self._pool[row]
                return Found(medium_of(parent), parent["sample_id"], parent["source"] or "", parent["licence"] or "")
        paths = [name for name in names if "://" not in name] if self._media_roots else []
        for root, name in itertools.product(self._media_roots, paths):
            path = local_medium(root, name, media.kind)
            if path is not None:
                return Found(Medium(place=Place(str(path), 0, -1)), _name_by_content(path))
        where = "under media_root" if paths else "among the kept rows of the shard sets"
        raise Refused("missing_media", f"{media.name}: not {where}")


def local_medium(root: Path, name: str, kind: Literal["image", "video"]) -> Path | None:
    """A file below `root`, or for a clip also a folder of its frames.

    A name without an extension may have any usual one; that of a clip may mean the folder of its frames.

    Raises:
        Refused: `unsafe_path`.
    """
    path = safe_path(root, name)
    if _is_file(path):
        return path
    if kind == "video":
        if path.is_dir():
            return path
        if path.suffix in _CLIPS and path.with_suffix("").is_dir():
            return path.with_suffix("")
    if not path.suffix:
        return next((found for end in _EXTENSIONS if _is_file(found := path.with_name(path.name + end))), None)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # a text where a name should stand
            return False
        raise


def safe_path(root: Path, name: str) -> Path:
    """A path below `root`, and nothing else.

    Raises:
        Refused: `unsafe_path` for an absolute path, one with `..`, or one that a link leads out.
    """
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or "\x00" in name or _DRIVE.match(name):
        raise Refused("unsafe_path", f"{name!r} leaves media_root")
    path = root / pure
    if not path.resolve().is_relative_to(root.resolve()):
        raise Refused("unsafe_path", f"{name!r} is a link out of media_root")
    return path


def _name_by_content(path: Path) -> str:
    """What a file that is in no shard set is called; a folder of frames by the hash of their hashes."""
    if path.is_dir():
        return f"sha256:{digest_of([sha256_of(frame) for frame in sorted(path.iterdir()) if frame.is_file()])}"
    return f"sha256:{sha256_of(path)}"
