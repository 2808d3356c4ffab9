"""`owl3 audit CARD`: believe nothing, derive everything again, offline.

Five questions, in this order:
    documents  are the card's own files the ones its manifest lists?
    chain      does every artifact from the card back to the sources exist, with the digest its child was made from?
    files      does every file of every artifact have the bytes its manifest lists?
    rows       does every row of the ledger say what its picture and text say, and the other way round?
    counts     is seen = kept + dropped, per artifact, by the rows themselves? Is every source row accounted for once?
    plans      (model cards) does every step of a plan hold the samples that its fingerprint says, in that order?
    figures    does every figure, queried over the derived rows, equal the card's? Do the documents show these figures?

A third party needs the workspace and the card, and trusts one thing: the card's digest (`expect`).
"""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from owl3 import __version__
from owl3.cards import eu, figures, provenance, tables
from owl3.cards.chain import Link, walk
from owl3.cards.config import CardConfig
from owl3.cards.derivation import Derivation
from owl3.cards.documents_check import compare_documents
from owl3.cards.facts import Facts
from owl3.cards.findings import Check, Findings, compared, failed, passed
from owl3.cards.model_audit import check_model, check_plans
from owl3.cards.render import Content, card_parents, grids
from owl3.config import load_yaml, validate
from owl3.errors import InputError, Owl3Error
from owl3.manifest import Manifest, read_manifest, verify_files
from owl3.progress import SILENT, Progress
from owl3.shards import is_table

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Audit:
    """The result.

    Attributes:
        sample: None for a full audit, else the share of kept samples whose bytes were read.
        statement: What may be said after it, in one sentence.
    """

    card: str
    digest: str
    checks: tuple[Check, ...]
    num_rows: int
    num_bytes: int
    sample: float | None
    statement: str

    @property
    def passed(self) -> bool:
        """Whether every claim holds."""
        return all(check.passed for check in self.checks)

    def first_false(self) -> Check | None:
        """The first claim that does not hold."""
        return next((check for check in self.checks if not check.passed), None)


def audit(
    card_folder: Path,
    workspace: Path,
    *,
    sample: float | None = None,
    seed: int = 0,
    expect: str | None = None,
    processes: int | None = None,
    progress: Progress = SILENT,
) -> Audit:
    """Audit a rendered card.

    Args:
        card_folder: datacards/NAME/VERSION.
        sample: Read the bytes of a random part of the kept samples only (0 < sample <= 1).
        expect: The card's digest (or its beginning) as published elsewhere.
        processes: How many derive rows beside each other; by default one, and all cores once it takes long.

    Raises:
        InputError: there is no card to audit. Anything false in it is a failed check, never an exception.
    """
    if sample is not None and not 0 < sample <= 1:
        raise InputError(f"--sample {sample}: give a share above 0 and up to 1, for example 0.02")
    findings = Findings()
    manifest = _card_manifest(card_folder, findings, expect)
    links = walk(workspace, manifest.parents, f"card {manifest.name}")
    _check_chain(links, findings)
    artifacts = _present(links)
    with (
        tempfile.TemporaryDirectory(prefix="owl3-audit-") as scratch,
        Derivation(Path(scratch), workspace, sample, seed, processes) as size,
    ):
        rows = [check for link in artifacts for check in size.derive(link, progress)]
        _check_files(artifacts, size, findings, tars=sample is None)
        findings.add(*rows)
        _check_counts(artifacts, size, findings)
        _check_provenance(artifacts, size, findings)
        if "model_card" in manifest.recipe:
            check_plans(artifacts, workspace, findings)
            check_model(card_folder, manifest, workspace, findings)
        else:
            _check_figures(card_folder, manifest, workspace, size, findings)
    return Audit(
        card=manifest.name,
        digest=manifest.digest,
        checks=tuple(findings.checks),
        num_rows=size.num_rows,
        num_bytes=size.num_bytes,
        sample=sample,
        statement=_statement(sample, size, not findings.false()),
    )


def _card_manifest(folder: Path, findings: Findings, expect: str | None) -> Manifest:
    path = folder / "manifest.json"
    if not path.is_file():
        raise InputError(f"{folder}: no manifest.json, so no finished card; give datacards/NAME/VERSION or NAME")
    try:
        manifest = read_manifest(folder)
        findings.add(passed("documents", "manifest.json", f"digest {manifest.digest[:16]}"))
    except InputError as error:
        try:
            manifest = Manifest.model_validate(json.loads(path.read_bytes()))
        except ValueError:
            raise error from None
        findings.add(failed("documents", "manifest.json", manifest.digest, manifest.compute_digest()))
    if manifest.kind != "card":
        raise InputError(f"{folder}: holds a {manifest.kind}, not a card; give datacards/NAME/VERSION or NAME")
    if expect is not None:
        held = manifest.digest.startswith(expect.lower()) and len(expect) >= 8
        findings.add(
            passed("documents", "digest", expect) if held else failed("documents", "digest", expect, manifest.digest)
        )
    findings.summarise(
        "documents",
        "files",
        [
            failed("documents", line.split(": ")[0].rsplit("/", 1)[-1], "as listed", line)
            for line in verify_files(folder, manifest)
        ],
        f"{len(manifest.files)} files",
    )
    return manifest


def _present(links: list[Link]) -> list[Link]:
    """What lies there, each artifact once: two children may name two digests of it, but its rows count once."""
    found: dict[tuple[str, str], Link] = {}
    for link in links:
        if link.manifest is not None and link.folder is not None:
            found.setdefault((link.stated.kind, link.stated.name), link)
    return list(found.values())


def _check_chain(links: list[Link], findings: Findings) -> None:
    for link in links:
        subject = f"{link.stated.kind} {link.stated.name}"
        if link.problem:
            findings.add(failed("chain", subject, link.stated.digest, link.problem))
        else:
            findings.add(passed("chain", subject, link.stated.digest))


def _check_files(links: list[Link], derivation: Derivation, findings: Findings, *, tars: bool) -> None:
    """Hash the files of every artifact, but the tars that were hashed while rows were derived from them.

    Args:
        tars: Whether tars are hashed at all; a sampled audit reads parts of them only.
    """
    for link in links:
        assert link.manifest is not None and link.folder is not None
        listed = tuple(
            entry for entry in link.manifest.files if not entry.volatile and (tars or not entry.path.endswith(".tar"))
        )
        part = link.manifest.model_copy(update={"files": listed})
        subject = f"{link.stated.kind} {link.stated.name}"
        known = derivation.tar_sha256.get((link.stated.kind, link.stated.name), {})
        problems = [
            failed("files", f"{subject} {line.split(': ')[0].rsplit('/', 1)[-1]}", "as listed", line)
            for line in _verify(link.folder, part, known)
        ]
        unlisted = _unlisted(link)
        problems += [failed("files", f"{subject} {name}", "not listed", "a file of the artifact") for name in unlisted]
        findings.summarise("files", subject, problems, f"{len(listed)} files")


def _verify(folder: Path, manifest: Manifest, known: Mapping[str, str]) -> list[str]:
    """Hash the files on all cores: hashing needs no Python."""
    parts = [manifest.model_copy(update={"files": (entry,)}) for entry in manifest.files]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return [line for lines in pool.map(lambda part: verify_files(folder, part, known), parts) for line in lines]


def _unlisted(link: Link) -> list[str]:
    """Tars and tables that no manifest vouches for."""
    assert link.manifest is not None and link.folder is not None
    listed = {entry.path for entry in link.manifest.files}
    present = (path.name for path in sorted(link.folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    return [name for name in present if (is_table(name) or name.endswith(".tar")) and name not in listed]


def _check_counts(links: list[Link], derivation: Derivation, findings: Findings) -> None:
    """seen = kept + dropped, by the derived rows."""
    for link in links:
        files = derivation.files.get((link.stated.kind, link.stated.name))
        if not files or link.manifest is None:
            continue
        rows = duckdb.sql(
            "select decision, reason, count(*) as amount from "
            f"read_parquet({tables.file_list(files)}, union_by_name = true) group by all order by all"
        ).fetchall()
        kept = sum(amount for decision, _, amount in rows if decision == "kept")
        dropped = {str(reason): amount for decision, reason, amount in rows if decision == "dropped"}
        counts = link.manifest.counts
        subject = f"{link.stated.kind} {link.stated.name}"
        findings.add(compared("counts", f"{subject} seen", counts.seen, sum(amount for *_, amount in rows)))
        findings.add(compared("counts", f"{subject} kept", counts.kept, kept))
        stated_drops = {reason: amount for reason, amount in counts.dropped.items() if amount}
        for reason in sorted({*stated_drops, *dropped}):
            findings.add(
                compared("counts", f"{subject} dropped {reason}", stated_drops.get(reason, 0), dropped.get(reason, 0))
            )


def _check_provenance(links: list[Link], derivation: Derivation, findings: Findings) -> None:
    """Every source row in the shards once; every parent of a built sample kept in an artifact before it."""
    for link in links:
        assert link.manifest is not None and link.folder is not None
        subject = f"{link.stated.kind} {link.stated.name}"
        files = derivation.files.get((link.stated.kind, link.stated.name))
        if not files:
            continue
        try:
            problems = provenance.problems(derivation.files, derivation.workspace, link, subject)
        except duckdb.Error as error:  # a damaged table: the chain names the file, this check says what it cost
            problems = [failed("source", subject, "readable tables", f"not readable: {error}")]
        findings.summarise("source", subject, problems, "every id accounted for once")


def _check_figures(
    folder: Path, manifest: Manifest, workspace: Path, derivation: Derivation, findings: Findings
) -> None:
    """Query every figure over the derived rows, and compare the documents with documents made from them."""
    recipe = manifest.recipe
    try:
        stated: Mapping[str, Any] = json.loads((folder / "figures.json").read_bytes())
        facts = load_yaml(folder / "facts.yaml", Facts)
        config = validate(recipe.get("card"), CardConfig, str(folder / "manifest.json"))
    except (OSError, ValueError, Owl3Error) as error:
        findings.add(failed("figures", "figures.json, facts.yaml", "readable", str(error)))
        return
    findings.add(compared("documents", "facts.yaml", recipe.get("facts"), facts.model_dump(mode="json")))
    files = {
        kind: [f for (k, n), fs in derivation.files.items() if k == kind and n in names for f in fs]
        for kind, names in (("shards", config.shards), ("samples", config.samples))
    }
    try:
        parents = card_parents(config, workspace)
        with tables.open_tables(files["shards"], files["samples"]) as db:
            values = figures.compute(db, tables.measured_columns(db))
            for name in sorted({*stated, *values}):
                findings.add(compared("figures", name, stated.get(name), values.get(name)))
            chosen = grids(db, config, values, workspace)
            content = Content(config, facts, parents, values, eu.domain_amounts(db), chosen)
        shown = compare_documents(folder, content)
        findings.add(*shown)
        made_by = manifest.tools.get("owl3", "")
        if made_by != __version__ and not all(check.passed for check in shown):
            other = f"owl3 {__version__}, whose documents may look different: audit it with the version that made it"
            findings.add(failed("documents", "made by", f"owl3 {made_by}", other))
    except (Owl3Error, duckdb.Error) as error:
        findings.add(failed("figures", "all", "computable", str(error).splitlines()[0]))


def _statement(sample: float | None, derivation: Derivation, clean: bool) -> str:
    if not clean:
        return "The card is not true; the failed checks say where."
    if sample is None:
        return f"Every figure was derived again from {derivation.num_read:,} samples ({derivation.num_bytes:,} bytes)."
    if not derivation.num_read:
        return "No sample was drawn: give a larger --sample."
    bound = 1 - (1 - CONFIDENCE) ** (1 / derivation.num_read)
    return (
        f"{derivation.num_read:,} samples were drawn at random and all agree: with {CONFIDENCE:.0%} confidence, "
        f"under {math.ceil(bound * 10000) / 100:.2f} % of the kept samples differ from the ledger. "
        "Tables, manifests and figures were checked in full; tars were not hashed whole."
    )
