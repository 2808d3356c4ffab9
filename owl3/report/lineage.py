"""The chain of artifacts as a drawing: columns from sources to cards, a curve from each parent to its child."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from markupsafe import Markup

from owl3.cards.charts import number
from owl3.cards.words import shown
from owl3.report.collect import Artifact

COLUMNS: tuple[tuple[str, ...], ...] = (
    ("source",),
    ("shards", "tokenizer"),
    ("samples",),
    ("plan",),
    ("run",),
    ("card",),
)
NODE_WIDTH, NODE_HEIGHT = 172, 58
GAP_X, GAP_Y = 44, 14


def draw(artifacts: Sequence[Artifact], hits: Collection[str] = ()) -> Markup:
    """An SVG; artifacts whose label stands in `hits` are marked."""
    columns = [[a for kind in kinds for a in artifacts if a.manifest.kind == kind] for kinds in COLUMNS]
    columns = [column for column in columns if column]
    if not columns:
        return Markup('<p class="none">No finished artifact yet.</p>')
    places = {
        artifact.manifest.digest: (4 + x * (NODE_WIDTH + GAP_X), 4 + y * (NODE_HEIGHT + GAP_Y))
        for x, column in enumerate(columns)
        for y, artifact in enumerate(column)
    }
    width = 8 + len(columns) * (NODE_WIDTH + GAP_X) - GAP_X
    height = 8 + max(len(column) for column in columns) * (NODE_HEIGHT + GAP_Y) - GAP_Y
    curves = Markup("").join(
        _curve(places[parent.digest], places[artifact.manifest.digest])
        for artifact in artifacts
        if artifact.manifest.digest in places
        for parent in artifact.manifest.parents
        if parent.digest in places
    )
    nodes = Markup("").join(
        _node(artifact, *places[artifact.manifest.digest], hit=artifact.label in hits)
        for artifact in artifacts
        if artifact.manifest.digest in places
    )
    return Markup(
        '<div class="graph" tabindex="0" role="region" aria-label="Lineage graph">'
        '<svg width="{}" height="{}" viewBox="0 0 {} {}" role="img" aria-label="Artifacts and their parents">'
        "{}{}</svg></div>"
    ).format(width, height, width, height, curves, nodes)


def _node(artifact: Artifact, x: int, y: int, *, hit: bool) -> Markup:
    manifest = artifact.manifest
    title = (
        f"{artifact.label}: {number(manifest.counts.kept)} of {number(manifest.counts.seen)} kept, {manifest.digest}"
    )
    name = manifest.name if len(manifest.name) <= 23 else f"{manifest.name[:22]}…"
    return Markup(
        '<g class="node{}"><title>{}</title><rect x="{}" y="{}" width="{}" height="{}" rx="8"/>'
        '<text class="kind" x="{}" y="{}">{}</text><text x="{}" y="{}">{}</text>'
        '<text class="small" x="{}" y="{}">{} · {}</text></g>'
    ).format(
        " hit" if hit else "",
        title,
        x,
        y,
        NODE_WIDTH,
        NODE_HEIGHT,
        x + 10,
        y + 17,
        manifest.kind,
        x + 10,
        y + 34,
        shown(name),
        x + 10,
        y + 50,
        number(manifest.counts.kept),
        manifest.digest[:12],
    )


def _curve(start: tuple[int, int], end: tuple[int, int]) -> Markup:
    x0, y0 = start[0] + NODE_WIDTH, start[1] + NODE_HEIGHT // 2
    x1, y1 = end[0], end[1] + NODE_HEIGHT // 2
    bend = max(20, (x1 - x0) // 2)
    return Markup('<path d="M{} {}C{} {} {} {} {} {}"/>').format(x0, y0, x0 + bend, y0, x1 - bend, y1, x1, y1)
