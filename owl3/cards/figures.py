"""Every figure on a card: a named query over the ledger, with the way it is drawn.

`owl3 card` runs these queries over the tables that the artifacts wrote; `owl3 audit` runs the very same queries over
tables it derives again from the tars, pictures and texts (`rederive.py`). A figure that can't be written as a query
over the ledger has no place on a card.

The queries see these views (`tables.py`):
    rows    one row per URL, kept or dropped, of all shards of the card
    kept    those of `rows` that are in a tar
    built   one row per built sample, kept or dropped
    samples those of `built` that are in a tar

Values are JSON: a number, or a list of rows. The order of rows is part of the value, so every query ends in a total
order.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import duckdb

Drawing = Literal["number", "bytes", "share", "bars", "histogram", "table", "ids"]
SINGLE = ("number", "bytes", "share")
Value = int | float | str | list[list[Any]]

PIXEL_EDGES = (0, 64, 128, 224, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048, 4096)
ASPECT_EDGES = (0, 0.33, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 2, 3)
WORD_EDGES = (0, 1, 3, 5, 8, 12, 16, 24, 32, 48, 64, 128, 256)
COUNT_EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 32, 64, 128, 256)
TOKEN_EDGES = (0, 16, 32, 64, 128, 256, 512, 768, 1024, 2048, 4096, 8192)
UNIT_EDGES = (-1, 0, 0.1, 0.15, 0.2, 0.25, 0.28, 0.3, 0.35, 0.4, 0.5, 0.7, 0.9)
TOP_ROWS = 20
GRID_CELLS = 24


@dataclass(frozen=True, slots=True)
class Figure:
    """A named query.

    Attributes:
        name: Key in figures.json; never changes its meaning.
        needs: "view.column" entries that must hold a value; without them the figure is listed as not measured.
    """

    name: str
    title: str
    group: str
    drawing: Drawing
    query: str
    needs: tuple[str, ...] = ()


def histogram(expression: str, view: str, edges: Sequence[float]) -> str:
    """A query counting rows between fixed edges: [low, high, count], the last bin open (high is null)."""
    bins = ", ".join(
        f"({number}, {low}::double, {edges[number + 1] if number + 1 < len(edges) else 'null'}::double)"
        for number, low in enumerate(edges)
    )
    return (
        f"with bins(number, low, high) as (values {bins}), "
        f"measured as (select {expression} as measure from {view}) "
        "select low, high, count(measure) from bins left join measured "
        "on measure >= low and (high is null or measure < high) group by number, low, high order by number"
    )


def ranking(expression: str, view: str, limit: int | None = None) -> str:
    """A query counting rows by value, the most frequent first, ties in the value's own order."""
    return (
        f"select coalesce(cast({expression} as varchar), '(none)') as label, count(*) as amount from {view} "
        f"group by label order by amount desc, label{f' limit {limit}' if limit else ''}"
    )


WORDS = "len(list_filter(regexp_split_to_array(caption, '\\s+'), lambda word: word <> ''))"
RANDOM_ORDER = "md5(sample_id)"

FIGURES: tuple[Figure, ...] = (
    Figure(
        "rows.seen",
        "URLs seen",
        "funnel",
        "number",
        "select count(*) from rows",
        ("rows.sample_id",),
    ),
    Figure(
        "rows.kept",
        "Pictures kept",
        "funnel",
        "number",
        "select count(*) from kept",
        ("rows.sample_id",),
    ),
    Figure(
        "rows.dropped",
        "URLs dropped",
        "funnel",
        "number",
        "select count(*) from rows where decision = 'dropped'",
        ("rows.sample_id",),
    ),
    Figure(
        "rows.drops",
        "Why URLs were dropped",
        "funnel",
        "bars",
        "select stage || ': ' || reason as label, count(*) as amount from rows where decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "rows.licences",
        "Licences of kept pictures",
        "rights",
        "bars",
        ranking("licence", "kept", TOP_ROWS),
        ("rows.licence",),
    ),
    Figure(
        "rights.signals",
        "Rights signals seen (signal, value, decision, URLs)",
        "rights",
        "table",
        "select rights_signal, coalesce(rights_value, '') as answer, decision, count(*) as amount from rows "
        "where rights_signal is not null group by all order by amount desc, rights_signal, answer, decision",
        ("rows.rights_signal",),
    ),
    Figure(
        "links.status",
        "Answers of servers",
        "links",
        "bars",
        ranking("coalesce(http_status, 'no answer')", "rows", TOP_ROWS),
        ("rows.http_status",),
    ),
    Figure(
        "links.health",
        "Link health by domain (domain, URLs, failed to fetch)",
        "links",
        "table",
        "select domain, count(*) as amount, count(*) filter (where decision = 'dropped' and stage = 'fetch') as failed "
        f"from rows group by domain order by failed desc, amount desc, domain limit {TOP_ROWS}",
        ("rows.stage", "rows.domain"),
    ),
    Figure(
        "domains.count",
        "Domains with kept pictures",
        "domains",
        "number",
        "select count(distinct domain) from kept",
        ("rows.domain",),
    ),
    Figure(
        "domains.top",
        "Domains",
        "domains",
        "bars",
        ranking("domain", "kept", TOP_ROWS),
        ("rows.domain",),
    ),
    Figure(
        "domains.top_tenth_share",
        "Share of kept pictures from the top 10 % of domains",
        "domains",
        "share",
        "with d as (select domain, count(*) as n from kept group by domain), "
        "r as (select n, row_number() over (order by n desc, domain) as place, count(*) over () as domains from d) "
        "select round(sum(n) filter (where place <= ceil(domains / 10.0))::double / greatest(sum(n), 1), 6) from r",
        ("rows.domain",),
    ),
    Figure(
        "pictures.bytes",
        "Bytes of pictures as stored",
        "pictures",
        "bytes",
        "select coalesce(sum(media_bytes), 0) from kept",
        ("rows.media_bytes",),
    ),
    Figure(
        "pictures.distinct",
        "Distinct pictures by sha256",
        "pictures",
        "number",
        "select count(distinct sha256) from kept",
        ("rows.sha256",),
    ),
    Figure(
        "pictures.formats",
        "Formats",
        "pictures",
        "bars",
        ranking("format", "kept"),
        ("rows.format",),
    ),
    Figure(
        "pictures.width_px",
        "Width as stored, pixels",
        "pictures",
        "histogram",
        histogram("width", "kept", PIXEL_EDGES),
        ("rows.width",),
    ),
    Figure(
        "pictures.height_px",
        "Height as stored, pixels",
        "pictures",
        "histogram",
        histogram("height", "kept", PIXEL_EDGES),
        ("rows.height",),
    ),
    Figure(
        "pictures.aspect",
        "Aspect ratio, width to height",
        "pictures",
        "histogram",
        histogram("width::double / greatest(height, 1)", "kept", ASPECT_EDGES),
        ("rows.width", "rows.height"),
    ),
    Figure(
        "captions.words",
        "Words per caption",
        "texts",
        "histogram",
        histogram(WORDS, "kept", WORD_EDGES),
        ("rows.caption",),
    ),
    Figure(
        "captions.distinct",
        "Distinct captions",
        "texts",
        "number",
        "select count(distinct caption) from kept",
        ("rows.caption",),
    ),
    Figure(
        "captions.languages",
        "Languages",
        "texts",
        "bars",
        ranking("language", "kept", TOP_ROWS),
        ("rows.language",),
    ),
    Figure(
        "quality.similarity",
        "CLIP similarity of picture and caption",
        "quality",
        "histogram",
        histogram("src_similarity", "kept", UNIT_EDGES),
        ("rows.src_similarity",),
    ),
    Figure(
        "safety.nsfw",
        "Unsafe-content score of the source",
        "quality",
        "histogram",
        histogram("src_nsfw", "kept", UNIT_EDGES),
        ("rows.src_nsfw",),
    ),
    Figure(
        "duplicates.dropped",
        "Duplicates taken out",
        "quality",
        "bars",
        "select reason as label, count(*) as amount from rows where stage = 'dedup' and decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "contamination.dropped",
        "Matches with evaluation data taken out",
        "quality",
        "bars",
        "select reason as label, count(*) as amount from rows where stage = 'decontaminate' and decision = 'dropped' "
        "group by label order by amount desc, label",
        ("rows.stage", "rows.reason"),
    ),
    Figure(
        "samples.seen",
        "Samples considered",
        "samples",
        "number",
        "select count(*) from built",
        ("built.sample_id",),
    ),
    Figure(
        "samples.kept",
        "Samples built",
        "samples",
        "number",
        "select count(*) from samples",
        ("built.sample_id",),
    ),
    Figure(
        "samples.drops",
        "Why samples were dropped",
        "samples",
        "bars",
        "select builder || ': ' || reason as label, count(*) as amount from built where decision = 'dropped' "
        "group by label order by amount desc, label",
        ("built.reason",),
    ),
    Figure(
        "samples.builders",
        "Samples by builder (builder, kind, samples, pictures)",
        "samples",
        "table",
        "select coalesce(builder, '') as builder, kind, count(*) as amount, sum(images) from samples "
        "group by builder, kind order by amount desc, builder, kind",
        ("built.builder",),
    ),
    Figure(
        "samples.images",
        "Pictures or frames per sample",
        "samples",
        "histogram",
        histogram("images", "samples", COUNT_EDGES),
        ("built.images",),
    ),
    Figure(
        "samples.media",
        "Pictures and frames in all samples",
        "samples",
        "number",
        "select coalesce(sum(images), 0) from samples",
        ("built.images",),
    ),
    Figure(
        "samples.frames",
        "Video frames in all samples",
        "samples",
        "number",
        "select count(*) from (select unnest(media) as m from samples) where m.time_s is not null",
        ("built.media",),
    ),
    Figure(
        "samples.text_tokens",
        "Text tokens per sample",
        "samples",
        "histogram",
        histogram("text_tokens", "samples", TOKEN_EDGES),
        ("built.text_tokens",),
    ),
    Figure(
        "samples.trained_tokens",
        "Trained tokens in all samples",
        "samples",
        "number",
        "select coalesce(sum(trained_tokens), 0) from samples",
        ("built.trained_tokens",),
    ),
    Figure(
        "samples.licences",
        "Licences of built samples",
        "samples",
        "bars",
        ranking("licence", "samples", TOP_ROWS),
        ("built.licence",),
    ),
    Figure(
        "samples.parents",
        "Pictures' samples used by built samples",
        "samples",
        "number",
        "select count(distinct parent) from (select unnest(parents) as parent from samples)",
        ("built.parents",),
    ),
    Figure(
        "grid.random",
        "A random choice of pictures",
        "grid",
        "ids",
        f"select sample_id, sha256, caption from kept order by {RANDOM_ORDER}, sample_id limit {GRID_CELLS}",
        ("rows.sha256",),
    ),
    Figure(
        "grid.worst",
        "The pictures most likely to be poor: smallest sides, longest shapes",
        "grid",
        "ids",
        "select sample_id, sha256, caption from kept "
        "order by least(width, height)::double / greatest(width, height, 1) "
        f"* least(width, height, 512), sample_id limit {GRID_CELLS // 2}",
        ("rows.sha256",),
    ),
)

GROUPS: Mapping[str, str] = {
    "funnel": "What came in and what was kept",
    "rights": "Rights",
    "links": "Link health",
    "domains": "Where it came from",
    "pictures": "Pictures",
    "texts": "Texts",
    "quality": "Quality, duplicates and safety",
    "samples": "Built samples",
    "grid": "Samples to look at",
}


def compute(db: duckdb.DuckDBPyConnection, measured: frozenset[str]) -> dict[str, Value]:
    """Run every query whose columns hold values.

    Args:
        measured: "view.column" entries that exist and are not null throughout (`tables.measured_columns`).
    """
    return {figure.name: evaluate(db, figure) for figure in FIGURES if measured.issuperset(figure.needs)}


def evaluate(db: duckdb.DuckDBPyConnection, figure: Figure) -> Value:
    """Run one figure's query and return its value as JSON's own types."""
    rows = db.execute(figure.query).fetchall()
    if figure.drawing in SINGLE:
        return _plain(rows[0][0])  # type: ignore[no-any-return]
    return [[_plain(cell) for cell in row] for row in rows]


def not_measured(values: Mapping[str, Value]) -> list[Figure]:
    """Figures that a card must name as missing instead of leaving out silently."""
    return [figure for figure in FIGURES if figure.name not in values]


def _plain(cell: Any) -> Any:
    if isinstance(cell, decimal.Decimal):
        return int(cell) if cell == cell.to_integral_value() else float(cell)
    if isinstance(cell, float) and not math.isfinite(cell):
        return None
    return cell
