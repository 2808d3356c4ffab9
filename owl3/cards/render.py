"""Render a datacard: manifests + ledger + facts.yaml in, a folder of documents out.

    datacards/NAME/VERSION/
        README.md        Hugging Face dataset card
        croissant.json   Croissant 1.1 with RAI
        checksums.txt    sha256 of every file of the corpus: `sha256sum -c` in the workspace
        spdx.json        SPDX 3.0.1 with the dataset profile
        eu-summary.md    tables of the European summary of training content
        card.html        the same for eyes, self-contained
        figures.json     every figure, as computed
        facts.yaml       what people wrote, as it was then
        manifest.json    digests of all this and of the artifacts behind it

The documents depend on the inputs alone: rendering again gives the same bytes.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import yaml
from markupsafe import Markup

from owl3 import __version__
from owl3.cards import charts, drawing, eu, figures, tables
from owl3.cards.chain import artifact_folder, checksums
from owl3.cards.config import CardConfig
from owl3.cards.croissant import croissant
from owl3.cards.facts import Facts, load_facts
from owl3.cards.figure import Value
from owl3.cards.pictures import data_uri, small_medium
from owl3.cards.spdx import spdx
from owl3.cards.words import markdown, shown
from owl3.config import canonical_json
from owl3.errors import ConfigError, InputError, StaleError
from owl3.manifest import Counts, Manifest, find_current, read_manifest, write_manifest
from owl3.media import MediaError
from owl3.progress import SILENT, Progress
from owl3.shards import is_table, read_member
from owl3.storage import write_atomic

logger = logging.getLogger(__name__)

DOCUMENTS = (
    "README.md",
    "card.html",
    "checksums.txt",
    "croissant.json",
    "eu-summary.md",
    "facts.yaml",
    "figures.json",
    "spdx.json",
)


@dataclass(frozen=True)
class Content:
    """All that the documents are made from."""

    config: CardConfig
    facts: Facts
    parents: tuple[Manifest, ...]
    values: dict[str, Value]
    domains: list[tuple[str, int]]
    grids: dict[str, list[dict[str, Any]]]

    @property
    def languages(self) -> list[str]:
        """Language codes of kept captions, the most frequent first."""
        found = self.values.get("captions.languages", [])
        assert isinstance(found, list)
        return [str(row[0]) for row in found if row[0] not in ("(none)", "und", "unknown")] or ["und"]


def card(
    cfg: CardConfig,
    workspace: Path,
    datacards_dir: Path,
    *,
    replace: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Render the card of a corpus, or do nothing when it is there and current.

    Args:
        replace: Render over a card of the same version whose inputs were others; for drafts.

    Raises:
        ConfigError: a fact is missing, or an artifact of the card is.
        StaleError: this version was rendered from other artifacts or facts: raise `version`.
    """
    facts = load_facts(datacards_dir, cfg.name)
    parents = card_parents(cfg, workspace)
    folder = datacards_dir / cfg.name / cfg.version
    recipe = {"card": cfg, "facts": facts}
    try:
        current = find_current(folder, recipe, parents)
    except StaleError as error:
        if not replace:
            raise StaleError(
                f"{folder}: version {cfg.version} was rendered from other artifacts or facts; raise card.version "
                "(a released version stays as it was), or give --replace for a draft"
            ) from error
        logger.warning("%s: rendered again from other inputs", folder)
        current = None
    if current is not None:
        return current
    progress.start(f"card {cfg.name} {cfg.version}", total=len(figures.FIGURES))
    content = gather(cfg, facts, parents, workspace, progress)
    (folder / "manifest.json").unlink(missing_ok=True)
    for name, data in documents(content).items():
        write_atomic(folder / name, data)
    manifest = write_manifest(
        folder,
        kind="card",
        name=f"{cfg.name}/{cfg.version}",
        counts=Counts.total(parent.counts for parent in parents if parent.kind == "shards"),
        recipe=recipe,
        parents=parents,
        tools={"owl3": __version__},
    )
    progress.finish(f"{folder}, digest {manifest.digest[:12]}")
    return manifest


def card_parents(cfg: CardConfig, workspace: Path) -> tuple[Manifest, ...]:
    """The finished artifacts that a card is about."""
    wanted = [("shards", name) for name in cfg.shards] + [("samples", name) for name in cfg.samples]
    found = []
    for kind, name in wanted:
        folder = artifact_folder(workspace, kind, name)
        if not (folder / "manifest.json").is_file():
            raise ConfigError(f"card {cfg.name}: {kind} {name!r} is not finished ({folder}); make it first")
        found.append(read_manifest(folder))
    return tuple(found)


def table_files(parents: Sequence[Manifest], workspace: Path, kind: str) -> list[Path]:
    """The ledger tables of a card's artifacts, as their manifests list them."""
    return [
        artifact_folder(workspace, parent.kind, parent.name) / entry.path
        for parent in parents
        if parent.kind == kind
        for entry in parent.files
        if is_table(entry.path)
    ]


def gather(
    cfg: CardConfig,
    facts: Facts,
    parents: tuple[Manifest, ...],
    workspace: Path,
    progress: Progress = SILENT,
) -> Content:
    """Compute every figure from the tables on disk and read the pictures of the grids."""
    with tables.open_tables(
        table_files(parents, workspace, "shards"), table_files(parents, workspace, "samples")
    ) as db:
        measured = tables.measured_columns(db)
        values: dict[str, Value] = {}
        for figure in figures.FIGURES:
            if measured.issuperset(figure.needs):
                values[figure.name] = figures.evaluate(db, figure)
            progress.advance()
        return Content(
            config=cfg,
            facts=facts,
            parents=parents,
            values=values,
            domains=eu.domain_amounts(db),
            grids=grids(db, cfg, values, workspace),
        )


def documents(content: Content) -> dict[str, bytes]:
    """The bytes of every document of the card."""
    page = _page(content)
    listing = checksums(content.parents)
    facts, version = content.facts, content.config.version
    croissant_text = croissant(
        facts, version, content.parents, content.values, checksums=listing, languages=content.languages
    )
    environment = template_environment()
    return {
        "README.md": environment.get_template("README.md.jinja").render(page).encode(),
        "card.html": environment.get_template("card.html.jinja").render(page).encode(),
        "checksums.txt": listing,
        "croissant.json": _json(croissant_text),
        "spdx.json": _json(spdx(facts, version, content.parents, content.values)),
        "eu-summary.md": environment.get_template("eu-summary.md.jinja").render(page | eu.summary(content)).encode(),
        "facts.yaml": facts_bytes(content.facts),
        "figures.json": figures_bytes(content.values),
    }


def figures_bytes(values: Mapping[str, Value]) -> bytes:
    """figures.json: one line per figure, so that a difference reads well."""
    lines = [f" {json.dumps(name)}: {canonical_json(value).decode()}" for name, value in sorted(values.items())]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def facts_bytes(facts: Facts) -> bytes:
    """The facts as the card keeps them."""
    text = yaml.safe_dump(facts.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return f"# As written in ../facts.yaml when this version was rendered.\n{text}".encode()


@functools.cache
def template_environment() -> jinja2.Environment:
    """Templates of cards and reports; HTML is escaped unless it was built as markup by `charts`."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("owl3.cards"),
        autoescape=jinja2.select_autoescape(enabled_extensions=("html.jinja",), default_for_string=True),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=charts.number,
        paragraph=charts.paragraph,
        md=markdown,
        md_long=lambda text: markdown(text, 5000),
        shown=shown,
    )
    return environment


def stylesheet() -> str:
    """The one style sheet of cards and reports."""
    return (Path(__file__).parent / "theme.css").read_text(encoding="utf-8")


def _page(content: Content) -> dict[str, Any]:
    groups = drawing.groups(content.values)
    if "grid" in groups:
        titles = {figure.name: figure.title for figure in figures.FIGURES}
        groups["grid"]["pictures"] = [{"title": titles[name], "cells": cells} for name, cells in content.grids.items()]
    return {
        "facts": content.facts,
        "version": content.config.version,
        "owl3_version": __version__,
        "css": Markup(stylesheet()),
        "groups": groups,
        "tiles": _tiles(content),
        "chain": content.parents,
        "languages": content.languages,
        "header": _header(content),
    }


def _tiles(content: Content) -> list[dict[str, str]]:
    titles = {figure.name: figure for figure in figures.FIGURES}
    wanted = ("rows.seen", "rows.kept", "domains.count", "pictures.bytes", "samples.kept", "samples.media")
    return [
        {
            "title": titles[name].title,
            "value": drawing.single(titles[name], value),
        }
        for name in wanted
        if isinstance(value := content.values.get(name), int | float)
    ]


def _header(content: Content) -> str:
    """The YAML that the Hugging Face hub reads."""
    kept = content.values.get("rows.kept", 0)
    assert isinstance(kept, int)
    generated = content.facts.kind == "synthetic"
    data = {
        "license": content.facts.licence.id,
        "language": content.languages,
        "pretty_name": content.facts.pretty_name,
        "size_categories": [size_category(kept)],
        "task_categories": content.facts.tasks,
        "annotations_creators": ["machine-generated" if generated else "found"],
        "language_creators": ["machine-generated" if generated else "found"],
        "source_datasets": ["original"],
        "tags": ["image", "text", "webdataset", "croissant", "owl3"],
    }
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def size_category(amount: int) -> str:
    """The hub's word for a number of rows."""
    edges = [(10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
    edges += [(10**8, "10M<n<100M"), (10**9, "100M<n<1B"), (10**10, "1B<n<10B"), (10**11, "10B<n<100B")]
    return next((word for edge, word in edges if amount < edge), "n>1T" if amount > 10**12 else "100B<n<1T")


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=2, ensure_ascii=False) + "\n").encode()


def grids(
    db: duckdb.DuckDBPyConnection, cfg: CardConfig, values: Mapping[str, Value], workspace: Path
) -> dict[str, list[dict[str, Any]]]:
    """The pictures of every grid, by figure name."""
    chosen = {
        figure.name: [str(row[0]) for row in values[figure.name]]  # type: ignore[union-attr]
        for figure in figures.FIGURES
        if figure.drawing == "ids" and figure.name in values
    }
    wanted = sorted({sample_id for ids in chosen.values() for sample_id in ids})
    columns = "sample_id, filename, shard, extension, media_offset, media_bytes, caption, src_nsfw"
    rows = db.execute(f"select {columns} from kept where list_contains(?, sample_id)", [wanted]).fetchall()
    cells = {row[0]: _cell(cfg, row, workspace) for row in rows}
    return {name: [cells[sample_id] for sample_id in ids] for name, ids in chosen.items()}


def _cell(cfg: CardConfig, row: tuple[Any, ...], workspace: Path) -> dict[str, Any]:
    """One picture of a grid; blurred where the source's safety score says so; of a clip, its first frame.

    Raises:
        InputError: there is none where the table says.
    """
    sample_id, table_path, shard, extension, offset, num_bytes, caption, score = row
    blurred = score is not None and score >= cfg.blur_above
    # The table may be one that an audit derived elsewhere; its folder is named like the artifact either way.
    tar = artifact_folder(workspace, "shards", Path(table_path).parent.name) / f"{shard}.tar"
    if offset is None or num_bytes is None:
        raise InputError(f"{tar}: the table does not say where sample {sample_id} lies; see `owl3 audit`")
    try:
        jpeg = small_medium(read_member(tar, offset, num_bytes), extension, cfg.thumbnail_px, blurred=blurred)
    except (InputError, MediaError, OSError) as error:
        raise InputError(f"{tar}: sample {sample_id} shows no picture ({error}); see `owl3 audit`") from error
    return {
        "sample_id": sample_id,
        "caption": shown(caption or "", 160),
        "uri": data_uri(jpeg),
        "blurred": blurred,
    }
