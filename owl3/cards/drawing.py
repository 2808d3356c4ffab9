"""How a figure's value becomes markup on card.html and Markdown in README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from owl3.cards import charts
from owl3.cards.figure import Figure, Value
from owl3.cards.figures import FIGURES, GROUPS, not_measured
from owl3.cards.words import markdown
from owl3.ledger import REASONS

_HEADS: Mapping[str, tuple[str, ...]] = {
    "rights.signals": ("signal", "value", "decision", "URLs"),
    "links.health": ("domain", "URLs", "not fetched"),
    "duplicates.largest": ("picture kept", "URLs", "hosts"),
    "samples.builders": ("builder", "kind", "samples", "pictures"),
}

_WHOLES: Mapping[str, str] = {
    "rows.drops": "rows.seen",
    "rows.licences": "rows.kept",
    "links.status": "rows.seen",
    "domains.top": "rows.kept",
    "captions.languages": "rows.kept",
    "samples.drops": "samples.seen",
    "samples.licences": "samples.kept",
}
"""Figures that parts of a whole are shares of: of all there is, not of the most frequent that are listed."""


def html(figure: Figure, value: list[list[Any]], values: Mapping[str, Value]) -> Markup:
    """Draw one chart or table; `values` are all figures of the card (shares of drops are of what was seen)."""
    if figure.drawing == "bars":
        seen = values.get(_WHOLES.get(figure.name, ""), 0)
        total = float(seen) if isinstance(seen, int) else 0.0
        return charts.bars(value, caption=figure.title, hints=_hints(value), total=total)
    if figure.drawing == "histogram":
        return charts.histogram(value, caption=figure.title)
    return charts.table(value, caption=_bare(figure.title), head=_HEADS.get(figure.name, ()))


def single(figure: Figure, value: Value) -> str:
    """A single number for people."""
    assert not isinstance(value, list)
    if figure.drawing == "share":
        return f"{float(value):.1%}"
    return charts.num_bytes(float(value)) if figure.drawing == "bytes" else charts.number(value)


def text(figure: Figure, value: Value) -> str:
    """The same as Markdown: a bullet for a number, a table for the rest."""
    if not isinstance(value, list):
        return f"- {figure.title}: {single(figure, value)}"
    if not value:
        return f"- {_bare(figure.title)}: none"
    if figure.drawing == "histogram":
        head: Sequence[str] = ("from", "to", "amount")
        rows = [row for row in value if row[2]]
    else:
        head = _HEADS.get(figure.name, ("", "amount"))
        rows = value
    lines = [f"**{_bare(figure.title)}**", "", f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    lines += [f"| {' | '.join(markdown(charts.number(cell)) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def groups(values: Mapping[str, Value]) -> dict[str, dict[str, Any]]:
    """Figures by section, with those that were not measured named; the picture grids are drawn by the caller."""
    missing = not_measured(values)
    made: dict[str, dict[str, Any]] = {}
    for key, title in GROUPS.items():
        figures = [figure for figure in FIGURES if figure.group == key]
        present = [figure for figure in figures if figure.name in values]
        if not present:
            continue
        numbers, drawings = [], []
        for figure in present:
            value = values[figure.name]
            if figure.drawing == "ids":
                continue
            entry = {"name": figure.name, "title": figure.title, "text": text(figure, value)}
            if isinstance(value, list):
                drawings.append(entry | {"markup": html(figure, value, values)})
            else:
                numbers.append(entry | {"value": single(figure, value)})
        absent = [figure for figure in missing if figure.group == key]
        made[key] = {
            "title": title,
            "numbers": numbers,
            "charts": drawings,
            "drawn": [*numbers, *drawings],
            "missing": absent,
            "pictures": [],
        }
    return made


def _hints(rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """What drop reasons mean ("fetch: not_found" → "404 or 410")."""
    labels = [str(row[0]) for row in rows]
    return {label: REASONS[label.split(": ")[-1]] for label in labels if label.split(": ")[-1] in REASONS}


def _bare(title: str) -> str:
    """Titles of tables list their columns in brackets for figures.json; a drawn table has a head instead."""
    return title.split(" (", maxsplit=1)[0]
