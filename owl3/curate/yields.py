"""Is a set's yield what it should be? Against a bound, and against the sets of earlier days.

Snapshots of one set (NAME-2026-11-21, NAME-2026-11-22 …) are each other's history; it lies in their manifests.
"""

import re
from pathlib import Path
from statistics import median

from owl3.config import Config
from owl3.manifest import MANIFEST_NAME, Counts, read_manifest

_DAY = re.compile(r"-\d{4}-\d{2}-\d{2}$")
TOLERANCE = 0.05
"""A yield within so much of the median of its history is like it, however steady the history was."""


class Yield(Config):
    """What share of a set's rows was kept, and what is wrong with it, if anything."""

    set: str
    kept: float
    history: tuple[float, ...]
    """Of other days, oldest first."""
    is_low: bool
    """Under the bound."""
    is_unlike: bool
    """Further from its history's median than thrice the usual distance, and than `TOLERANCE`."""

    @property
    def event(self) -> str | None:
        """What to tell; None when all is well."""
        return "owl3.yield.low" if self.is_low else "owl3.yield.changed" if self.is_unlike else None


def judge_yield(workspace: Path, name: str, at_least: float = 0.0) -> Yield | None:
    """Judge a finished set; None while it is not finished."""
    folder = workspace / "shards" / name
    if not (folder / MANIFEST_NAME).is_file():
        return None
    kept = _kept(read_manifest(folder).counts)
    base = _DAY.sub("", name)
    days = sorted(
        path.name
        for path in folder.parent.glob(f"{base}*")
        if path.name != name and _DAY.sub("", path.name) == base and (path / MANIFEST_NAME).is_file()
    )
    history = tuple(_kept(read_manifest(folder.parent / day).counts) for day in days)
    return Yield(
        set=name,
        kept=kept,
        history=history,
        is_low=kept < at_least,
        is_unlike=bool(history) and _is_unlike(kept, history),
    )


def _is_unlike(kept: float, history: tuple[float, ...]) -> bool:
    middle = median(history)
    usual = median(abs(entry - middle) for entry in history)
    return abs(kept - middle) > max(TOLERANCE, 3 * usual)


def _kept(counts: Counts) -> float:
    return counts.kept / counts.seen if counts.seen else 0.0
