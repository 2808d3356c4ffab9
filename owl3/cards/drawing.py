"""How a figure's value becomes markup on card.html and Markdown in README.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from owl3.cards import charts
from owl3.cards.figures import FIGURES, GROUPS, Figure, Value, not_measured
from owl3.cards.words import markdown
from owl3.ledger import REASONS

_HEADS: Mapping[str, tuple[str, ...]] = {
    "rights.signals": ("signal", "value", "decision", "URLs"),
    "links.health": ("domain", "URLs", "not fetched"),
    "samples.builders": ("builder", "kind", "samples", "pictures"),
}


def html(figure: Figure, value: Value, values: Mapping[str, Value]) -> Markup:
    """Draw one figure; `values` are all figures of the card (shares of drops are of what was seen)."""
    if not isinstance(value, list):
        shown = charts.num_bytes(float(value)) if figure.drawing == "bytes" else charts.number(value)
        return Markup('<p><span class="soft">{}</span><br><b>{}</b></p>').format(figure.title, shown)
    if figure.drawing == "bars":
        seen = values.get({"rows.drops": "rows.seen", "samples.drops": "samples.seen"}.get(figure.name, ""), 0)
        return charts.bars(value, caption=figure.title, hints=_hints(value), total=float(seen) if seen else 0)  # type: ignore[arg-type]
    if figure.drawing == "histogram":
        return charts.histogram(value, caption=figure.title)
    return charts.table(value, caption=_bare(figure.title), head=_HEADS.get(figure.name, ()))


def text(figure: Figure, value: Value) -> str:
    """The same as Markdown: a bullet for a number, a table for the rest."""
    if not isinstance(value, list):
        shown = charts.num_bytes(float(value)) if figure.drawing == "bytes" else charts.number(value)
        return f"- {figure.title}: {shown}"
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
        drawn = [
            {
                "name": figure.name,
                "title": figure.title,
                "markup": html(figure, values[figure.name], values),
                "text": text(figure, values[figure.name]),
            }
            for figure in present
            if figure.drawing != "ids"
        ]
        absent = [figure for figure in missing if figure.group == key]
        made[key] = {"title": title, "drawn": _small_first(drawn, present), "missing": absent, "pictures": []}
    return made


def _small_first(drawn: list[dict[str, Any]], figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """Single numbers stand before charts, so that Markdown bullets form one list."""
    numbers = {figure.name for figure in figures if figure.drawing in ("number", "bytes")}
    return sorted(drawn, key=lambda entry: entry["name"] not in numbers)


def _hints(rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """What drop reasons mean ("fetch: not_found" → "404 or 410")."""
    labels = [str(row[0]) for row in rows]
    return {label: REASONS[label.split(": ")[-1]] for label in labels if label.split(": ")[-1] in REASONS}


def _bare(title: str) -> str:
    """Titles of tables list their columns in brackets for figures.json; a drawn table has a head instead."""
    return title.split(" (", maxsplit=1)[0]
