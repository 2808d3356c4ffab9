"""Keep evaluation sets out of the training data: their pictures, found by exact and perceptual hash."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from owl3.config import Config
from owl3.curate.dedup import U64, find_near
from owl3.errors import InputError
from owl3.media import MediaError, probe_image

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")


class Benchmark(Config):
    """An evaluation set whose pictures must not be trained on."""

    name: str
    images: tuple[str, ...] = Field(min_length=1)
    """Glob patterns, absolute or relative to the workspace."""
    radius: int = Field(default=4, ge=0, le=16)
    """Hamming distance of perceptual hashes up to which a picture counts as the same; exact bytes always do."""


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """A benchmark's pictures as hashes."""

    name: str
    radius: int
    sha256: frozenset[str]
    phash: U64

    def describe(self) -> dict[str, object]:
        """What the manifest says about it: how many pictures, and which."""
        digest = sha256("".join(sorted(self.sha256)).encode()).hexdigest()
        return {"images": len(self.sha256), "digest": digest, "radius": self.radius}


def fingerprint(benchmark: Benchmark, workspace: Path) -> Fingerprints:
    """Hash a benchmark's pictures.

    Raises:
        InputError: when no file matches, or one of them is no picture.
    """
    hashes, exact = [], set()
    for path in _files(benchmark, workspace):
        data = path.read_bytes()
        exact.add(sha256(data).hexdigest())
        try:
            hashes.append(int(probe_image(data).phash, 16))
        except MediaError as error:
            raise InputError(f"benchmark {benchmark.name}: {path}: {error.reason}: {error}") from error
    return Fingerprints(benchmark.name, benchmark.radius, frozenset(exact), np.array(sorted(set(hashes)), np.uint64))


def _files(benchmark: Benchmark, workspace: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in benchmark.images:
        root, relative = (Path(pattern).anchor, pattern[1:]) if Path(pattern).is_absolute() else (workspace, pattern)
        found += sorted(p for p in Path(root).glob(relative) if p.suffix.lower() in _SUFFIXES)
    if not found:
        raise InputError(f"benchmark {benchmark.name}: no picture matches {', '.join(benchmark.images)}")
    return found


def find_contaminated(
    media_sha256: Sequence[str | None], phash: U64, has_phash: NDArray[np.bool_], against: Sequence[Fingerprints]
) -> dict[int, str]:
    """Which rows stand in a benchmark: row number to the first benchmark's name."""
    hits: dict[int, str] = {}
    for prints in against:
        near = find_near(phash, prints.phash, prints.radius)
        for hit in np.flatnonzero((near >= 0) & has_phash):
            hits.setdefault(int(hit), prints.name)
        for row, digest in enumerate(media_sha256):
            if digest in prints.sha256:
                hits.setdefault(row, prints.name)
    return hits
