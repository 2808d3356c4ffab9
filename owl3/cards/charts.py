"""Charts as plain HTML and SVG: no script, no request, readable as tables by a screen reader and on paper.

Every function returns markup whose text is escaped; numbers are formatted the same way everywhere.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from owl3.cards.words import shown

MARKED_POINTS = 12
"""A curve of no more points than this shows them: what lies between is only a line."""

Row = Sequence[object]
Series = Mapping[str, Sequence[tuple[float, float]]]
Bands = Mapping[str, Sequence[tuple[float, float, float]]]
"""Of some curves by name: x, and the low and high end of an interval there."""


def number(value: object) -> str:
    """Format for people: 12,345 · 0.283 · 1.2e-05."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (float(value).is_integer() and abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.1f}"
    return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}".rstrip("0").rstrip(".")


def num_bytes(value: float) -> str:
    """1.5 MiB and the like."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.2f} TiB"


def share(part: float, whole: float) -> str:
    """A percentage that never rounds something to nothing."""
    if not whole or not part:
        return "0 %"
    percent = 100 * part / whole
    return "<0.1 %" if percent < 0.1 else f"{percent:.1f} %"


def bars(rows: Sequence[Row], *, caption: str, hints: Mapping[str, str] | None = None, total: float = 0) -> Markup:
    """Labelled amounts as a table whose last column is drawn; `hints` explains labels, `total` is what 100 % means."""
    if not rows:
        return Markup('<p class="none">{}: none.</p>').format(caption)
    largest = max(_float(row[1]) for row in rows) or 1
    whole = total or sum(_float(row[1]) for row in rows)
    lines = []
    for label, amount, *_ in rows:
        hint = (hints or {}).get(str(label), "")
        note = Markup('<span class="hint">{}</span>').format(hint) if hint else ""
        lines.append(
            Markup(
                '<tr><th scope="row"><bdi>{}</bdi>{}</th><td class="amount">{}</td><td class="share">{}</td>'
                '<td class="bar"><span style="width:{}%"></span></td></tr>'
            ).format(shown(str(label)), note, number(amount), share(_float(amount), whole), _percent(amount, largest))
        )
    return Markup('<table class="bars"><caption>{}</caption><tbody>{}</tbody></table>').format(
        caption, Markup("").join(lines)
    )


def histogram(rows: Sequence[Row], *, caption: str) -> Markup:
    """Columns between edges; empty bins at both ends are left out."""
    used = [index for index, row in enumerate(rows) if row[2]]
    if not used:
        return Markup('<p class="none">{}: nothing to count.</p>').format(caption)
    rows = rows[used[0] : used[-1] + 1]
    largest = max(_float(row[2]) for row in rows) or 1
    columns = []
    for low, high, amount in rows:
        label = f"{number(low)}+" if high is None else number(low)
        title = f"{number(low)} and more" if high is None else f"{number(low)} to under {number(high)}"
        columns.append(
            Markup(
                '<li title="{}: {}"><span class="count">{}</span><span class="column" style="height:{}%"></span>'
                '<span class="edge">{}</span></li>'
            ).format(title, number(amount), number(amount) if amount else "", _percent(amount, largest), label)
        )
    return Markup('<figure class="histogram"><figcaption>{}</figcaption><ol>{}</ol></figure>').format(
        caption, Markup("").join(columns)
    )


def table(rows: Sequence[Row], *, caption: str, head: Sequence[str] = ()) -> Markup:
    """A plain table; numbers are set right."""
    numeric = {index for row in rows[:1] for index, cell in enumerate(row) if isinstance(cell, int | float)}
    header = Markup("<thead><tr>{}</tr></thead>").format(
        Markup("").join(
            Markup('<th scope="col"{}>{}</th>').format(Markup(' class="amount"') if index in numeric else "", cell)
            for index, cell in enumerate(head)
        )
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="amount">{}</td>').format(number(cell))
                if isinstance(cell, int | float)
                else Markup("<td><bdi>{}</bdi></td>").format(shown(str(cell)))
                for cell in row
            )
        )
        for row in rows
    )
    return Markup(
        '<div class="scroll" tabindex="0" role="region" aria-label="{}">'
        "<table><caption>{}</caption>{}<tbody>{}</tbody></table></div>"
    ).format(caption, caption, header if head else "", body)


def lines(
    series: Series, *, caption: str, x_label: str = "step", log_y: bool = False, bands: Bands | None = None
) -> Markup:
    """Curves over a common x axis as one SVG, with a legend and the last value of each; `bands` are drawn behind.

    Curves that are the same are drawn once, under all their names; a few points are marked.
    """
    points = {
        name: tuple((x, y) for x, y in values if math.isfinite(y) and (y > 0 or not log_y))
        for name, values in series.items()
    }
    points = {name: values for name, values in points.items() if values} if bands else _together(points)
    if not points:
        return Markup('<p class="none">{}: no values.</p>').format(caption)
    xs = [x for values in points.values() for x, _ in values]
    ys = [_scaled(y, log_y) for values in points.values() for _, y in values]
    ys += [_scaled(y, log_y) for name in points for _, *ends in (bands or {}).get(name, ()) for y in ends]
    frame = _Frame(min(xs), max(xs), min(ys), max(ys))
    marks: list[Markup] = [frame.axes(x_label, log_y)]
    legend: list[Markup] = []
    for index, (name, values) in enumerate(points.items()):
        if bands and bands.get(name):
            marks.append(_band(frame, bands[name], index, log_y))
        path = " ".join(f"{frame.x(x):.1f},{frame.y(_scaled(y, log_y)):.1f}" for x, y in thinned(values))
        marks.append(Markup('<polyline class="s{}" points="{}"/>').format(index % 6, path))
        for x, y in values if len(values) <= MARKED_POINTS else ():
            place = frame.x(x), frame.y(_scaled(y, log_y))
            marks.append(Markup('<circle class="s{}" cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(index % 6, *place))
        legend.append(
            Markup('<li class="s{}"><bdi>{}</bdi> <b>{}</b></li>').format(index % 6, shown(name), number(values[-1][1]))
        )
    return Markup(
        '<figure class="lines"><figcaption>{}</figcaption>'
        '<svg viewBox="0 0 640 240" role="img" aria-label="{}">{}</svg>'
        '<ul class="legend">{}</ul></figure>'
    ).format(caption, caption, Markup("").join(marks), Markup("").join(legend))


def _together(series: Mapping[str, tuple[tuple[float, float], ...]]) -> dict[str, tuple[tuple[float, float], ...]]:
    """Curves with points, those of the same points under one name."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, values in series.items():
        if values:
            names.setdefault(values, []).append(name)
    return {", ".join(together): values for values, together in names.items()}


def _band(frame: _Frame, band: Sequence[tuple[float, float, float]], index: int, log_y: bool) -> Markup:
    around = [(x, high) for x, _, high in band] + [(x, low) for x, low, _ in reversed(band)]
    path = " ".join(f"{frame.x(x):.1f},{frame.y(_scaled(y, log_y)):.1f}" for x, y in around)
    style = f"fill:var(--s{index % 6});fill-opacity:.15;stroke:none"
    return Markup('<polygon style="{}" points="{}"/>').format(style, path)


def thinned(values: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """Keep at most `most` points, evenly, and always the last."""
    if len(values) <= most:
        return list(values)
    stride = math.ceil(len(values) / most)
    kept = list(values[::stride])
    return kept if kept[-1] == values[-1] else [*kept, values[-1]]


class _Frame:
    """Maps data to the drawing area of a 640 x 240 picture."""

    LEFT, RIGHT, TOP, BOTTOM = 56.0, 628.0, 10.0, 204.0

    def __init__(self, x_min: float, x_max: float, y_min: float, y_max: float) -> None:
        self.x_min, self.x_max = x_min, x_max if x_max > x_min else x_min + 1
        pad = (y_max - y_min) * 0.05 or 0.5
        self.y_min, self.y_max = y_min - pad, y_max + pad

    def x(self, value: float) -> float:
        return self.LEFT + (value - self.x_min) / (self.x_max - self.x_min) * (self.RIGHT - self.LEFT)

    def y(self, value: float) -> float:
        return self.BOTTOM - (value - self.y_min) / (self.y_max - self.y_min) * (self.BOTTOM - self.TOP)

    def axes(self, x_label: str, log_y: bool) -> Markup:
        parts: list[Markup] = []
        for value in log_ticks(self.y_min, self.y_max) if log_y else ticks(self.y_min, self.y_max):
            height = self.y(value)
            text = number(10**value if log_y else value)
            parts.append(
                Markup('<line class="grid" x1="56" x2="628" y1="{0:.1f}" y2="{0:.1f}"/>').format(height)
                + Markup('<text x="50" y="{:.1f}" text-anchor="end">{}</text>').format(height + 4, text)
            )
        for value in ticks(self.x_min, self.x_max):
            parts.append(
                Markup('<text x="{:.1f}" y="222" text-anchor="middle">{}</text>').format(self.x(value), number(value))
            )
        parts.append(Markup('<text class="axis" x="342" y="237" text-anchor="middle">{}</text>').format(x_label))
        return Markup("").join(parts)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round values inside [low, high], about `about` of them."""
    span = high - low
    if span <= 0:
        return [low]
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    first = math.ceil(low / step)
    return [round(index * step, 12) for index in range(first, math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms inside [low, high] of 1, 2 and 5 times powers of ten, or of the powers alone where these suffice."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    for digits in ((1,), (1, 2, 5)):
        found = [power + math.log10(digit) for power in powers for digit in digits]
        found = [value for value in found if low <= value <= high]
        if len(found) >= 3:
            return found
    return found if len(found) > 1 else ticks(low, high)


def _scaled(value: float, log: bool) -> float:
    return math.log10(value) if log else value


def _float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _percent(amount: object, largest: float) -> str:
    return f"{100 * _float(amount) / largest:.2f}".rstrip("0").rstrip(".")


def paragraph(text: str) -> Markup:
    """A fact's text as paragraphs (blank lines part them), with what stands in `backticks` as code."""
    parts = [part.strip() for part in text.split("\n\n") if part.strip()]
    return Markup("").join(Markup("<p>{}</p>").format(_with_code(part)) for part in parts)


def _with_code(text: str) -> Markup:
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))
