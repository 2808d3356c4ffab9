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
from owl3.build.lint_parents import find_orphans, find_repeats
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
    indexes = {tar: size for tar in tars if (size := _size_of_index(tar, report)) is not None}
    report.total = sum(size.kept for size in indexes.values())
    linter = _linter_for(manifest, list(indexes), workspace)
    for tar, places in _choose(tars, indexes, sample):
        rows = _rows_of(tar) if tar in indexes else []
        _lint_shard(tar, rows, None if places is None else [_kept(rows)[place] for place in places], linter, report)
    if indexes:
        report.findings += find_repeats(folder, list(indexes))
    if indexes and isinstance(linter, SampleLinter) and workspace.is_dir():
        report.findings += find_orphans(workspace, folder, list(indexes))
    if manifest is not None:
        report.findings += _lint_counts(folder, manifest, list(indexes.values()))
    return report


@dataclass(frozen=True, slots=True)
class _Size:
    """Rows of an index."""

    seen: int
    kept: int


def _read_manifest(folder: Path, report: Report) -> Manifest | None:
    try:
        return read_manifest(folder)
    except InputError as error:
        report.findings.append(Finding("manifest", str(folder / MANIFEST_NAME), str(error)))
        return None


def _size_of_index(tar: Path, report: Report) -> _Size | None:
    """How many rows a tar's index has; None, and a finding, when it can't be read whole."""
    path = tar.with_suffix(".parquet")
    try:
        decisions = _rows_of(tar, ["decision"])
    except (OSError, pa.ArrowException) as error:
        report.findings.append(Finding("index", str(path), f"can't be read: {error}"))
        return None
    return _Size(len(decisions), len(_kept(decisions)))


def _rows_of(tar: Path, columns: list[str] | None = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(tar.with_suffix(".parquet"), columns=columns).to_pylist()
    return rows


def _kept(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row.get("decision") == "kept"]


def _linter_for(manifest: Manifest | None, tars: list[Path], workspace: Path) -> SampleLinter | PairLinter:
    """Samples have a builder in their index, curated pairs a caption."""
    if manifest is not None:
        is_samples = manifest.kind == "samples"
    else:
        is_samples = not tars or "caption" not in pq.read_schema(tars[0].with_suffix(".parquet")).names
    return SampleLinter(workspace, manifest.recipe if manifest else {}) if is_samples else PairLinter()


def _choose(
    tars: list[Path], indexes: dict[Path, _Size], sample: int | None
) -> Iterator[tuple[Path, list[int] | None]]:
    """Which kept rows of which tar to look at; None: the whole tar."""
    total = sum(size.kept for size in indexes.values())
    if sample is None or sample >= total:
        yield from ((tar, None) for tar in tars)
        return
    chosen = np.sort(Permutation(total, key_of("lint", total))(np.arange(sample)))
    first = 0
    for tar, size in indexes.items():
        places = chosen[(chosen >= first) & (chosen < first + size.kept)] - first
        first += size.kept
        if len(places):
            yield tar, places.tolist()


def _lint_shard(
    tar: Path,
    rows: list[dict[str, Any]],
    chosen: list[dict[str, Any]] | None,
    linter: SampleLinter | PairLinter,
    report: Report,
) -> None:
    """Check a whole tar against its rows, or the chosen rows of it."""
    findings = report.findings
    findings += _lint_decisions(tar, rows)
    by_key = {row["key"]: row for row in _kept(rows)}
    met: set[str] = set()
    groups = _groups_of_tar(tar, report) if chosen is None else _groups_by_index(tar, chosen, linter, report)
    for position, (key, members) in enumerate(groups):
        report.checked += 1
        where = f"{tar}: {key}"
        if key in met:
            findings.append(Finding("duplicate", where, "this key stands in the tar twice"))
        met.add(key)
        row = by_key.get(key)
        if row is None and rows:
            findings.append(Finding("index-row", where, "has no row in the index"))
        if row is not None and chosen is None and linter.ordered and row["position"] != position:
            findings.append(Finding("position", where, f"is number {position}, the index says {row['position']}"))
        findings += linter.check(where, key, members, row)
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


def _lint_counts(folder: Path, manifest: Manifest, sizes: list[_Size]) -> list[Finding]:
    """The manifest's counts against the indexes."""
    seen, kept = sum(size.seen for size in sizes), sum(size.kept for size in sizes)
    if (manifest.counts.seen, manifest.counts.kept) == (seen, kept):
        return []
    says = f"manifest: {manifest.counts.seen} seen, {manifest.counts.kept} kept"
    return [Finding("counts", str(folder), f"{says}; indexes: {seen} seen, {kept} kept")]
