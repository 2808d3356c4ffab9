"""What a figure is, and the queries that many figures share.

Values are JSON: a number, or a list of rows. The order of rows is part of the value, so every query ends in a total
order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Drawing = Literal["number", "bytes", "share", "bars", "histogram", "table", "ids"]
SINGLE = ("number", "bytes", "share")
Value = int | float | str | list[list[Any]]

COUNT_EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 32, 64, 128, 256)
TOP_ROWS = 20


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
