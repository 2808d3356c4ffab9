"""Which questions training may have seen: their scores are told apart from those of clean ones.

A list is a text file that names one question id, or one picture or video by its file name, per line. A benchmark may
bring its own (`overlap.txt` in its folder); curation writes `shards/NAME/overlap-BENCHMARK.txt` where its recipe flags
what it finds instead of dropping it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from owl3.config import digest_of
from owl3.eval.items import Item

OVERLAP_NAME = "overlap.txt"


def overlap_files(folder: Path, given: Sequence[Path]) -> list[Path]:
    """The lists there are: the benchmark's own, and those given, which curation writes when it flags."""
    return [path for path in (folder / OVERLAP_NAME, *given) if path.is_file()]


def overlap_digest(lists: Sequence[Path]) -> str:
    """What the lists say together, hashed; empty without any."""
    return digest_of(sorted(_listed(lists))) if lists else ""


def _listed(lists: Sequence[Path]) -> set[str]:
    return {line.strip() for path in lists for line in path.read_text(encoding="utf-8").splitlines()} - {""}


def mark_overlap(items: Sequence[Item], lists: Sequence[Path]) -> Sequence[Item]:
    """Note which questions may have been seen in training, where there are lists of them.

    A list names one question id, or one picture or video by its file name, per line. Scores are then also given for
    clean and overlapped questions apart.
    """
    if not lists:
        return items
    known = _listed(lists)
    return [replace(item, meta={**item.meta, "overlap": bool(_names(item) & known)}) for item in items]


def _names(item: Item) -> set[str]:
    return {item.id, item.question(), *(medium.name() for medium in item.media())}
