"""What the pages show, read from a workspace as plain data. Nothing here knows HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from owl3.cards import runs
from owl3.cards.chain import FOLDERS
from owl3.cards.pictures import data_uri, small_medium, small_picture
from owl3.cards.subjects import understand
from owl3.cards.tables import records, views_of
from owl3.cards.trace import Trace, trace
from owl3.errors import InputError
from owl3.ledger import REASONS, connect
from owl3.manifest import MANIFEST_NAME, Manifest, read_manifest
from owl3.media import MediaError
from owl3.samples import Sample
from owl3.shards import read_member

SAMPLES_SHOWN = 4
"""Built samples per artifact on the index page."""

PICTURES_SHOWN = 12
"""Pictures per shard artifact on the index page."""

LABEL_LETTERS = 24
"""A text of fewer letters right before a picture is taken for its label."""

MEDIA_SHOWN = 8
"""Pictures of one sample that are drawn; the number of the rest is told."""


@dataclass(frozen=True)
class Artifact:
    """A finished artifact of the workspace, or a card about it."""

    manifest: Manifest
    folder: Path

    @property
    def label(self) -> str:
        """ "shards photos"."""
        return f"{self.manifest.kind} {self.manifest.name}"


@dataclass(frozen=True)
class RunView:
    """A stage's curves and scores."""

    run: runs.Run
    curves: dict[str, list[tuple[float, float]]]
    rates: dict[str, list[tuple[float, float]]]
    phases: dict[str, list[tuple[float, float]]]  # seconds of a step, by what it was at
    evaluations: list[runs.Evaluation]
    stats: dict[str, Any]


def artifacts(workspace: Path, datacards_dir: Path) -> list[Artifact]:
    """Every finished artifact in the order of the chain, then the cards."""
    found = []
    for folder in FOLDERS.values():
        for path in sorted(
            [*workspace.glob(f"{folder}/*/{MANIFEST_NAME}"), *workspace.glob(f"{folder}/*/*/{MANIFEST_NAME}")]
        ):
            manifest = read_manifest(path.parent)
            if FOLDERS.get(manifest.kind) == folder:
                found.append(Artifact(manifest, path.parent))
    return found + cards(workspace, datacards_dir, found)


def cards(workspace: Path, datacards_dir: Path, known: Sequence[Artifact]) -> list[Artifact]:
    """Rendered cards about artifacts of this workspace, by their digests."""
    digests = {artifact.manifest.digest for artifact in known}
    folders = [path.parent for path in sorted(datacards_dir.glob(f"*/*/{MANIFEST_NAME}"))]
    manifests = [(folder, read_manifest(folder)) for folder in folders]
    return [
        Artifact(manifest, folder)
        for folder, manifest in manifests
        if manifest.kind == "card" and any(parent.digest in digests for parent in manifest.parents)
    ]


def drops(manifest: Manifest) -> list[tuple[str, int]]:
    """Reasons and amounts, the most frequent first."""
    return sorted(manifest.counts.dropped.items(), key=lambda entry: (-entry[1], entry[0]))


def reason_hints(manifest: Manifest) -> dict[str, str]:
    """What the reasons mean."""
    return {reason: REASONS[reason] for reason in manifest.counts.dropped if reason in REASONS}


def pictures_of(db: duckdb.DuckDBPyConnection, workspace: Path, name: str, side_px: int) -> list[dict[str, Any]]:
    """A random, reproducible choice of kept pictures of a shard artifact."""
    rows = records(
        db,
        "select sample_id, caption, domain, shard, extension, media_offset, media_bytes from shard_rows "
        f"where artifact = ? and decision = 'kept' order by md5(sample_id) limit {PICTURES_SHOWN}",
        [name],
    )
    return [row | {"uri": _picture(workspace, name, row, side_px)} for row in rows]


def _picture(workspace: Path, name: str, row: dict[str, Any], side_px: int) -> str | None:
    """A thumbnail; None for bytes that are gone."""
    try:
        data = read_member(workspace / "shards" / name / f"{row['shard']}.tar", row["media_offset"], row["media_bytes"])
        return data_uri(small_medium(data, row["extension"], side_px))
    except (InputError, MediaError, OSError):
        return None


def samples_of(db: duckdb.DuckDBPyConnection, workspace: Path, name: str, side_px: int) -> list[dict[str, Any]]:
    """A random, reproducible choice of built samples, in reading order."""
    rows = records(
        db,
        "select sample_id, kind, builder, shard, images, text_tokens, trained_tokens, json_offset, json_bytes, media "
        f"from sample_rows where artifact = ? and decision = 'kept' order by md5(sample_id) limit {SAMPLES_SHOWN}",
        [name],
    )
    return [show_sample(workspace, workspace / "samples" / name, row, side_px) for row in rows]


def show_sample(workspace: Path, folder: Path, row: dict[str, Any], side_px: int) -> dict[str, Any]:
    """One sample as turns of text and thumbnails.

    Args:
        row: Its row of the sample index.
    """
    record = read_member(folder / f"{row['shard']}.tar", row["json_offset"], row["json_bytes"])
    sample = Sample.model_validate_json(record)
    parts: list[dict[str, Any]] = []
    for index, segment in enumerate(sample.segments):
        role = next((turn.role for turn in sample.turns if turn.start <= index < turn.end), "document")
        if segment.medium is None:
            parts.append({"role": role, "text": segment.text})
        elif segment.medium < MEDIA_SHOWN:
            uri = _medium(workspace, row["media"][segment.medium], side_px)
            parts.append({"role": role, "uri": uri, "time_s": segment.time_s, "number": segment.medium + 1})
    return {
        "sample_id": sample.id,
        "kind": sample.kind,
        "builder": sample.builder,
        "licence": sample.licence,
        "units": reading_units(parts),
        "images": sample.num_media,
        "not_shown": max(0, sample.num_media - MEDIA_SHOWN),
        "text_tokens": row["text_tokens"],
        "trained_tokens": row["trained_tokens"],
    }


def reading_units(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Parts in reading order, those together that must not be torn apart by the end of a line.

    In a conversation that is a label and its picture ("Image 2:"), in a document a picture and its text. `turn` marks
    where a new line begins: with each question, and with each picture of a document that text came before.
    """
    units: list[dict[str, Any]] = []
    for part in parts:
        last = units[-1]["parts"][-1] if units else None
        is_picture, in_document = "text" not in part, part["role"] == "document"
        if last is not None and part["role"] == last["role"]:
            label_of_picture = is_picture and not in_document and len(last.get("text", "")) in range(1, LABEL_LETTERS)
            text_of_picture = not is_picture and in_document and "text" not in last
            if label_of_picture or text_of_picture:
                units[-1]["parts"].append(part)
                continue
        begins = last is not None and (
            part["role"] not in (last["role"], "assistant") or (in_document and is_picture and "text" in last)
        )
        units.append({"turn": begins, "parts": [part]})
    return units


def _medium(workspace: Path, medium: dict[str, Any], side_px: int) -> str | None:
    try:
        return data_uri(
            small_picture(read_member(workspace / medium["path"], medium["offset"], medium["bytes"]), side_px)
        )
    except (InputError, MediaError, OSError):
        return None


def run_views(workspace: Path) -> list[RunView]:
    """Every stage with its curves, in the order in which stages follow each other."""
    return [_run_view(run) for run in runs.iter_runs(workspace)]


def _run_view(run: runs.Run) -> RunView:
    rows = runs.read_metrics(run.folder / "metrics.jsonl")
    curves: dict[str, list[tuple[float, float]]] = {}
    rates: dict[str, list[tuple[float, float]]] = {}
    phases: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        step = float(row["step"])
        for key in ("loss", "grad_norm", "validation_loss", "tokens_per_s", "images_per_s"):
            if isinstance(row.get(key), int | float):
                curves.setdefault(key, []).append((step, float(row[key])))
        for group, rate in (row.get("learning_rate") or {}).items():
            rates.setdefault(group, []).append((step, float(rate)))
        for phase, seconds in (row.get("phase_seconds") or {}).items():
            phases.setdefault(phase, []).append((step, float(seconds)))
    stats = dict(run.manifest.stats) if run.manifest else {"steps": run.steps}
    return RunView(run, curves, rates, phases, runs.all_evaluations(run.folder), stats)


def example_trace(db: duckdb.DuckDBPyConnection, workspace: Path, datacards_dir: Path) -> Trace | None:
    """One URL that went far: the first by hash among those with built samples; None in a workspace without shards."""
    views = views_of(db)
    if "shard_rows" not in views:
        return None
    built = "semi join (select distinct unnest(parents) as sample_id from sample_rows) using (sample_id)"
    query = (
        "select url from shard_rows {} where decision = 'kept' and domain is not null order by md5(sample_id) limit 1"
    )
    row = db.execute(query.format(built if "sample_rows" in views else "")).fetchone()
    return None if row is None else trace(workspace, understand(str(row[0]), "url"), datacards_dir)


def open_ledger(workspace: Path) -> duckdb.DuckDBPyConnection:
    """The workspace's tables."""
    return connect(workspace)
