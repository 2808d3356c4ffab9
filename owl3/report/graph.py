"""Boxes in columns with curves between them, as one SVG: the shape of a lineage and of a trace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from owl3.cards.words import shown

NODE_WIDTH, NODE_HEIGHT = 172, 58
GAP_X, GAP_Y = 44, 14
MARGIN = 4
SMALLEST = 0.85
"""A drawing shrinks to its page down to this part of its size, and scrolls from there on."""
_NAME_LETTERS = 23
_NOTE_LETTERS = 27


@dataclass(frozen=True, slots=True)
class Node:
    """A box.

    Attributes:
        key: Unique in the drawing; edges name it.
        kind: Small word above the name.
        note: Small line below it.
        title: What a pointer that rests on it and a screen reader tell.
        hit: Drawn as touched.
    """

    key: str
    kind: str
    name: str
    note: str
    title: str
    hit: bool = False


def draw_graph(
    columns: Sequence[Sequence[Node]], edges: Sequence[tuple[str, str]], *, label: str, description: str
) -> Markup:
    """An SVG that scrolls sideways where it is too wide, and can be reached by keyboard.

    Args:
        columns: From left to right; empty ones are left out.
        edges: Keys of a left and a right node; those of nodes that are not drawn are left out.
        label: Name of the region.
        description: Name of the picture.
    """
    columns = [column for column in columns if column]
    width = 2 * MARGIN + len(columns) * (NODE_WIDTH + GAP_X)
    height = max((_height(column) for column in columns), default=0)
    places = {
        node.key: (
            MARGIN + x * (NODE_WIDTH + GAP_X),
            MARGIN + y * (NODE_HEIGHT + GAP_Y) + (height - _height(column)) // 2,
        )
        for x, column in enumerate(columns)
        for y, node in enumerate(column)
    }
    curves = Markup("").join(
        _curve(places[start], places[end]) for start, end in edges if start in places and end in places
    )
    nodes = Markup("").join(_box(node, *places[node.key]) for column in columns for node in column)
    return Markup(
        '<div class="graph scroll" tabindex="0" role="region" aria-label="{}">'
        '<svg style="width:100%;min-width:{}px;max-width:{}px;height:auto" viewBox="0 0 {} {}" role="img" '
        'aria-label="{}">{}{}</svg></div>'
    ).format(label, int(SMALLEST * width), width, width, height, description, curves, nodes)


def _height(column: Sequence[Node]) -> int:
    return 2 * MARGIN + len(column) * (NODE_HEIGHT + GAP_Y) - GAP_Y


def _box(node: Node, x: int, y: int) -> Markup:
    return Markup(
        '<g class="node{}"><title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="8"/>'
        '<text class="kind" x="{}" y="{}">{}</text><text x="{}" y="{}">{}</text>'
        '<text class="small" x="{}" y="{}">{}</text></g>'
    ).format(
        " hit" if node.hit else "",
        shown(node.title),
        x,
        y,
        NODE_WIDTH,
        NODE_HEIGHT,
        x + 10,
        y + 17,
        shown(node.kind),
        x + 10,
        y + 34,
        shown(_cut(node.name, _NAME_LETTERS)),
        x + 10,
        y + 50,
        shown(_cut(node.note, _NOTE_LETTERS)),
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _curve(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    x0, y0 = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT // 2
    x1, y1 = end[0], end[1] + NODE_HEIGHT // 2
    if start[0] == end[0]:  # within a column: a bow on its right, not a line back through the boxes
        x1, bow = x0, x0 + GAP_X
        return Markup('<path d="M{} {}C{} {} {} {} {} {}"/>').format(x0, y0, bow, y0, bow, y1, x1, y1)
    bend = max(20, (x1 - x0) // 2)
    return Markup('<path d="M{} {}C{} {} {} {} {} {}"/>').format(x0, y0, x0 + bend, y0, x1 - bend, y1, x1, y1)
