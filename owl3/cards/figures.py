"""Every figure on a card: a named query over the ledger, with the way it is drawn.

`owl3 card` runs these queries over the tables that the artifacts wrote; `owl3 audit` runs the very same queries over
tables it derives again from the tars, pictures and texts (`rederive.py`). A figure that can't be written as a query
over the ledger has no place on a card.

The queries see these views (`tables.py`):
    rows    one row per URL, kept or dropped, of all shards of the card
    kept    those of `rows` that are in a tar
    built   one row per built sample, kept or dropped
    samples those of `built` that are in a tar
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from typing import Any

import duckdb

from owl3.cards.figure import SINGLE, Figure, Value
from owl3.cards.figures_media import MEDIA_FIGURES
from owl3.cards.figures_samples import SAMPLE_FIGURES
from owl3.cards.figures_urls import URL_FIGURES

FIGURES: tuple[Figure, ...] = (*URL_FIGURES, *MEDIA_FIGURES, *SAMPLE_FIGURES)

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
