"""The chain of artifacts as a drawing: columns from sources to cards, a curve from each parent to its child."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from markupsafe import Markup

from owl3.cards.charts import number
from owl3.report.collect import Artifact
from owl3.report.graph import Node, draw_graph

COLUMNS: tuple[tuple[str, ...], ...] = (
    ("source",),
    ("shards", "tokenizer"),
    ("samples",),
    ("plan",),
    ("run",),
    ("card",),
)


def draw(artifacts: Sequence[Artifact], hits: Collection[str] = ()) -> Markup:
    """An SVG; artifacts whose label stands in `hits` are marked."""
    depth = _stage_depths(artifacts)
    ordered = sorted(artifacts, key=lambda a: depth.get(a.manifest.name, 0))  # plans lie beside their runs
    columns = [[_node(a, hits) for kind in kinds for a in ordered if a.manifest.kind == kind] for kinds in COLUMNS]
    if not any(columns):
        return Markup('<p class="none">No finished artifact yet.</p>')
    edges = [(parent.digest, a.manifest.digest) for a in artifacts for parent in a.manifest.parents]
    return draw_graph(columns, edges, label="Lineage graph", description="Artifacts and their parents")


def _stage_depths(artifacts: Sequence[Artifact]) -> dict[str, int]:
    """How many stages each run goes back to, by its name."""
    parents = {
        a.manifest.name: [parent.name for parent in a.manifest.parents if parent.kind == "run"]
        for a in artifacts
        if a.manifest.kind == "run"
    }

    def depth(name: str) -> int:
        return 1 + max((depth(parent) for parent in parents[name] if parent in parents), default=0)

    return {name: depth(name) for name in parents}


def _node(artifact: Artifact, hits: Collection[str]) -> Node:
    manifest = artifact.manifest
    kept, seen = number(manifest.counts.kept), number(manifest.counts.seen)
    return Node(
        key=manifest.digest,
        kind=manifest.kind,
        name=manifest.name,
        note=f"{kept} · {manifest.digest[:12]}",
        title=f"{artifact.label}: {kept} of {seen} kept, {manifest.digest}",
        hit=artifact.label in hits,
    )
