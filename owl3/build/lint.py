"""`owl3 lint`: do shards or samples keep the contract? Every doubt becomes a finding, a damaged file too.

    Finding("sha256", "samples/pairs/00000.tar: 9f…: medium 0", "the bytes have another hash than declared")

Full: every tar front to back, against its index and its manifest. Sampled: evenly chosen samples by their index, with
the confidence that gives. `findings.RULES` lists what is looked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from owl3.build.draw import Permutation, key_of
from owl3.build.findings import Finding
from owl3.build.lint_pair import PairLinter
from owl3.build.lint_parents import find_orphans
from owl3.build.lint_sample import SampleLinter
from owl3.errors import InputError
from owl3.ledger import REASONS
from owl3.manifest import MANIFEST_NAME, Manifest, read_manifest, verify_files
from owl3.shards import Member, iter_members, read_member

CONFIDENCE = 0.95
"""Of the bound that a sampled check without findings gives."""


@dataclass
class Report:
    """What was looked at, and what was found."""

    findings: list[Finding] = field(default_factory=list)
    checked: int = 0
    total: int = 0

    @property
    def confidence(self) -> dict[str, float] | None:
        """For a sampled check without findings: at this level, at most this share of all samples is faulty."""
        if self.findings or self.checked >= self.total or not self.checked:
            return None
        return {"level": CONFIDENCE, "at_most": round(1 - (1 - CONFIDENCE) ** (1 / self.checked), 6)}

    @property
    def summary(self) -> str:
        """One line for people."""
        what = f"{self.checked} of {self.total} samples checked, {len(self.findings)} findings"
        bound = self.confidence
        return (
            what if bound is None else f"{what}; {bound['level']:.0%} sure that under {bound['at_most']:.2%} are faulty"
        )


def lint(path: Path, workspace: Path, *, sample: int | None = None) -> Report:
    """Check a sample set, a shard set, or one tar of either.

    Args:
        path: `samples/NAME`, `shards/NAME`, or a tar.
        workspace: What the indexes' paths are relative to, and where parents are looked for.
        sample: Look at so many samples, evenly chosen by content; None: all, and every file's hash.

    Raises:
        InputError: when nothing at `path` could be checked.
    """
    path, workspace = path.absolute(), workspace.absolute()
    folder = path if path.is_dir() else path.parent
    tars = sorted(path.glob("[0-9][0-9][0-9][0-9][0-9].tar")) if path.is_dir() else [path]
    if not tars or not all(tar.is_file() for tar in tars):
        raise InputError(f"{path}: holds no shards (00000.tar …); give a folder of samples/ or shards/, or one tar")
    report = Report()
    manifest = _read_manifest(folder, report) if path.is_dir() else None
    if manifest is not None and sample is None:
        report.findings += [Finding("manifest-file", str(folder), text) for text in verify_files(folder, manifest)]
    indexes = {tar: _read_index(tar, report) for tar in tars}
    report.total = sum(len(_kept(rows)) for rows in indexes.values())
    linter = _linter_for(manifest, indexes, workspace)
    shards = _ShardLint(linter, report)
    for tar, chosen in _choose(indexes, sample):
        shards.check(tar, indexes[tar], chosen)
    rows = [row for found in indexes.values() for row in found]
    if isinstance(linter, SampleLinter) and workspace.is_dir():
        report.findings += find_orphans(workspace, folder, rows)
    if manifest is not None:
        report.findings += _lint_counts(folder, manifest, rows)
    return report


def _read_manifest(folder: Path, report: Report) -> Manifest | None:
    try:
        return read_manifest(folder)
    except InputError as error:
        report.findings.append(Finding("manifest", str(folder / MANIFEST_NAME), str(error)))
        return None


def _read_index(tar: Path, report: Report) -> list[dict[str, Any]]:
    path = tar.with_suffix(".parquet")
    try:
        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    except (OSError, pa.ArrowException) as error:
        report.findings.append(Finding("index", str(path), f"can't be read: {error}"))
        return []


def _kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("decision") == "kept"]


def _linter_for(
    manifest: Manifest | None, indexes: dict[Path, list[dict[str, Any]]], workspace: Path
) -> SampleLinter | PairLinter:
    """Samples have a builder in their index, curated pairs a caption."""
    first = next((row for rows in indexes.values() for row in rows), {})
    is_samples = manifest.kind == "samples" if manifest is not None else "caption" not in first
    return SampleLinter(workspace, manifest.recipe if manifest else {}) if is_samples else PairLinter()


def _choose(
    indexes: dict[Path, list[dict[str, Any]]], sample: int | None
) -> Iterator[tuple[Path, list[dict[str, Any]] | None]]:
    """Which rows of which tar to look at; None: the whole tar."""
    total = sum(len(_kept(rows)) for rows in indexes.values())
    if sample is None or sample >= total:
        yield from ((tar, None) for tar in indexes)
        return
    chosen = set(Permutation(total, key_of("lint", total))(np.arange(sample)).tolist())
    place = 0
    for tar, rows in indexes.items():
        kept = _kept(rows)
        picked = [row for number, row in enumerate(kept, place) if number in chosen]
        place += len(kept)
        if picked:
            yield tar, picked


class _ShardLint:
    """Checks tars against their index rows; remembers keys over all of them."""

    def __init__(self, linter: SampleLinter | PairLinter, report: Report) -> None:
        self._linter = linter
        self._report = report
        self._seen: set[str] = set()

    def check(self, tar: Path, rows: list[dict[str, Any]], chosen: list[dict[str, Any]] | None) -> None:
        """Check a whole tar, or the chosen rows of it."""
        findings = self._report.findings
        findings += _lint_decisions(tar, rows)
        by_key = {row["key"]: row for row in _kept(rows)}
        met: set[str] = set()
        if chosen is None:
            groups = _groups_of_tar(tar, self._report)
        else:
            groups = _groups_by_index(tar, chosen, self._linter, self._report)
        for position, (key, members) in enumerate(groups):
            self._report.checked += 1
            where = f"{tar}: {key}"
            if key in self._seen:
                findings.append(Finding("duplicate", where, "this key was met before"))
            self._seen.add(key)
            met.add(key)
            row = by_key.get(key)
            if row is None and rows:
                findings.append(Finding("index-row", where, "has no row in the index"))
            if row is not None and chosen is None and self._linter.ordered and row["position"] != position:
                findings.append(Finding("position", where, f"is number {position}, the index says {row['position']}"))
            findings += self._linter.check(where, key, members, row)
        lost = [key for key in by_key if key not in met] if chosen is None else []
        findings += [Finding("lost", f"{tar}: {key}", "is in the index, but not in the tar") for key in lost]


def _lint_decisions(tar: Path, rows: list[dict[str, Any]]) -> Iterator[Finding]:
    for row in rows:
        where = f"{tar}: {row.get('sample_id')}"
        if row.get("decision") not in ("kept", "dropped"):
            yield Finding("decision", where, f"{row.get('decision')!r} is neither kept nor dropped")
        elif (row["decision"] == "dropped") != (row.get("reason") in REASONS):
            yield Finding("reason", where, f"{row['decision']} with reason {row.get('reason')!r}")


Members = list[tuple[Member, bytes]]


def _groups_of_tar(tar: Path, report: Report) -> Iterator[tuple[str, Members]]:
    """Neighbouring members of one key; a damaged tar ends with a finding."""
    key, members = "", Members()
    try:
        for member, data in iter_members(tar):
            stem = member.name.partition(".")[0]
            if "/" in member.name or "\\" in member.name or not stem:
                report.findings.append(Finding("key", f"{tar}: {member.name}", "dots or separators in a key split it"))
            if stem != key and members:
                yield key, members
                members = []
            key = stem
            members.append((member, data))
    except InputError as error:
        report.findings.append(Finding("tar", str(tar), str(error)))
    except (OSError, EOFError) as error:
        report.findings.append(Finding("tar", str(tar), f"{type(error).__name__}: {error}"))
    if members:
        yield key, members


def _groups_by_index(
    tar: Path, chosen: list[dict[str, Any]], linter: SampleLinter | PairLinter, report: Report
) -> Iterator[tuple[str, Members]]:
    """The members of chosen rows, read where the index says they are."""
    for row in chosen:
        members = Members()
        try:
            for member in linter.members_of(row):
                members.append((member, read_member(tar, member.offset, member.num_bytes)))
        except (InputError, OSError) as error:
            report.findings.append(Finding("tar", f"{tar}: {row['key']}", str(error)))
        yield row["key"], members


def _lint_counts(folder: Path, manifest: Manifest, rows: list[dict[str, Any]]) -> list[Finding]:
    """The manifest's counts against the indexes."""
    kept = len(_kept(rows))
    if (manifest.counts.seen, manifest.counts.kept) == (len(rows), kept):
        return []
    says = f"manifest: {manifest.counts.seen} seen, {manifest.counts.kept} kept"
    return [Finding("counts", str(folder), f"{says}; indexes: {len(rows)} seen, {kept} kept")]
