"""Removal lists: what must not be in the corpus, by URL, domain, sha256, perceptual hash or sample id.

A list is a text file with one entry per line (`#` begins a comment), or a parquet table with a column of the kind's
name. URLs, domains and ids are refused before anything is fetched; hashes as soon as the bytes are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from pydantic import Field

from owl3.config import Config
from owl3.curate.address import plain_host
from owl3.curate.dedup import U64, find_near
from owl3.errors import InputError
from owl3.samples import canonical_url

Kind = Literal["url", "domain", "sha256", "phash", "sample_id"]


class Blocklist(Config):
    """A list of things to leave out."""

    kind: Kind
    file: str
    """Absolute, or relative to the workspace."""
    radius: int = Field(default=4, ge=0, le=16)
    """phash: Hamming distance up to which a picture is the listed one."""

    def path(self, workspace: Path) -> Path:
        """Where the file lies.

        Raises:
            InputError: when it does not.
        """
        path = workspace / self.file
        if not path.is_file():
            raise InputError(f"blocklist {self.kind}: no file {path}")
        return path


@dataclass(frozen=True, slots=True)
class Blocked:
    """All lists of a recipe, ready to be asked."""

    urls: frozenset[str]
    domains: frozenset[str]
    ids: frozenset[str]
    sha256: frozenset[str]
    phashes: tuple[tuple[U64, int], ...]  # hashes and their radius

    def has_row(self, row: Mapping[str, Any]) -> bool:
        """Is a row of a URL table listed by URL, domain (or a domain above it) or id?"""
        if row["canonical_url"] in self.urls or row["sample_id"] in self.ids:
            return True
        labels = plain_host(str(row["domain"])).split(".")
        return any(".".join(labels[start:]) in self.domains for start in range(len(labels))) if self.domains else False

    def near(self, phash: U64) -> list[int]:
        """Rows whose perceptual hash is listed."""
        hits: set[int] = set()
        for known, radius in self.phashes:
            hits.update(int(row) for row in np.flatnonzero(find_near(phash, known, radius) >= 0))
        return sorted(hits)


def load_blocklists(lists: Sequence[Blocklist], workspace: Path) -> Blocked:
    """Read all lists.

    Raises:
        InputError: when one is missing or holds something else than its kind.
    """
    entries: dict[str, set[str]] = {"url": set(), "domain": set(), "sample_id": set(), "sha256": set()}
    phashes: list[tuple[U64, int]] = []
    for entry in lists:
        path = entry.path(workspace)
        try:
            values = _read(path, entry.kind)
            if entry.kind == "phash":
                phashes.append((np.array(sorted({int(value, 16) for value in values}), np.uint64), entry.radius))
            elif entry.kind == "url":
                entries["url"].update(canonical_url(value) for value in values)
            elif entry.kind == "domain":
                entries["domain"].update(plain_host(value.removeprefix("*.")) for value in values)
            else:
                entries[entry.kind].update(value.lower() for value in values)
        except (ValueError, OverflowError) as error:
            raise InputError(f"{path}: not a list of {entry.kind}: {error}") from error
    return Blocked(
        frozenset(entries["url"]),
        frozenset(entries["domain"]),
        frozenset(entries["sample_id"]),
        frozenset(entries["sha256"]),
        tuple(phashes),
    )


def _read(path: Path, kind: Kind) -> list[str]:
    if path.suffix == ".parquet":
        if kind not in pq.read_schema(path).names:
            raise InputError(f"{path}: no column {kind!r}")
        return [str(value) for value in pq.read_table(path, columns=[kind]).column(kind).to_pylist() if value]
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
