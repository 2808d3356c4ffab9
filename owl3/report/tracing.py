"""`owl3 trace X --html FILE`: a trace as one page, drawn and in tables, with the pictures it is about.

The page needs nothing beside it. It shows the way forward in columns: rows of URLs, shards, sample sets, plans, stages,
evaluations, cards. Where a column would grow long, the last box says how many more there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from owl3.cards import charts, runs
from owl3.cards.pictures import data_uri, small_medium
from owl3.cards.trace import Trace
from owl3.errors import InputError
from owl3.media import MediaError
from owl3.report.graph import Node, draw_graph
from owl3.report.pages import page_environment
from owl3.shards import read_member
from owl3.storage import write_atomic

NODES_PER_COLUMN = 9
PICTURES = 8
THUMBNAIL_PX = 132
BLUR_ABOVE = 0.5
"""Safety score of the source from which a thumbnail is blurred."""


def write_trace_page(path: Path, found: Trace, workspace: Path) -> None:
    """Write the page of a trace."""
    write_atomic(path, trace_page(found, workspace))


def trace_page(found: Trace, workspace: Path, back: str = "") -> bytes:
    """The page of a trace.

    Args:
        back: Where a link leads back to; none without.
    """
    page = {
        "back": back,
        "trace": found,
        "graph": draw_trace(found),
        "tiles": _tiles(found),
        "pictures": _pictures(found, workspace),
        "stages": [(name, stage, len(stage)) for name, stage in _stages(found.checkpoints).items()],
    }
    return page_environment().get_template("trace.html.jinja").render(page).encode()


def draw_trace(found: Trace) -> Markup:
    """The way from URLs to cards as an SVG."""
    columns, edges = trace_graph(found)
    if not any(columns):
        return Markup('<p class="none">Nothing in the workspace holds it.</p>')
    return draw_graph(columns, edges, label="Trace graph", description="Where it came from and where it went")


def trace_graph(found: Trace) -> tuple[list[list[Node]], list[tuple[str, str]]]:
    """Columns of boxes, left to right, and what leads to what."""
    sets = {kind: [a for a in found.artifacts if a["kind"] == kind] for kind in ("shards", "samples")}
    stages = _stages(found.checkpoints)
    columns = [
        _limited([_url_node(row, number) for number, row in enumerate(found.urls)], found.urls_total, "rows"),
        _limited([_set_node(a, "row") for a in sets["shards"]], len(sets["shards"]), "shard sets"),
        _limited([_set_node(a, "sample") for a in sets["samples"]], len(sets["samples"]), "sample sets"),
        _limited([_plan_node(hit) for hit in found.plans], len(found.plans), "plans"),
        *([_stage_node(name, stages[name]) for name in level] for level in _levels(stages)),
        [
            *_limited([_score_node(e) for e in found.evaluations], len(found.evaluations), "evaluations"),
            *_limited([_card_node(card) for card in found.cards], len(found.cards), "cards"),
        ],
    ]
    edges = [(f"url {number}", f"shards {row['artifact']}") for number, row in enumerate(found.urls)]
    edges += [(f"shards {a['name']}", f"samples {b['name']}") for a in sets["shards"] for b in sets["samples"]]
    edges += [(f"samples {a['name']}", f"plan {hit.plan}") for a in sets["samples"] for hit in found.plans]
    edges += [(f"plan {name}", f"run {name}") for name in stages]
    parents = {name: next((h.inherited_from for h in hits if h.inherited_from), "") for name, hits in stages.items()}
    edges += [(f"run {parent}", f"run {name}") for name, parent in parents.items()]
    edges += [(f"run {e.run}", _score_key(e)) for e in found.evaluations]
    if not stages:
        edges += [(f"samples {a['name']}", f"card {card['name']}") for a in sets["samples"] for card in found.cards]
    return columns, edges


def _limited(nodes: Sequence[Node], total: int, word: str) -> list[Node]:
    if total <= NODES_PER_COLUMN:
        return list(nodes)
    kept = list(nodes[: NODES_PER_COLUMN - 1])
    rest = total - len(kept)
    return [*kept, Node(f"more {word}", "", f"{charts.number(rest)} more", word, f"{charts.number(rest)} more {word}")]


def _url_node(row: dict[str, Any], number: int) -> Node:
    if "amount" in row:  # of a checkpoint, rows are told by host
        name, note = str(row["domain"]), f"{charts.number(row['amount'])} rows, {row['licence']}"
        return Node(f"url {number}", "host", name, note, f"{name}: {note}", hit=True)
    fate = "kept" if row["decision"] == "kept" else f"dropped: {row['reason']}"
    if row["url"] is None:
        return Node(f"url {number}", "a URL", "cleared", fate, f"a URL that was cleared, {fate}")
    name = str(row["url"]).rsplit("/", 1)[-1] or str(row["domain"])
    return Node(f"url {number}", str(row["domain"]), name, fate, f"{row['url']}, {fate}", hit=fate == "kept")


def _set_node(artifact: dict[str, Any], word: str) -> Node:
    note = f"{_counted(artifact['amount'], word)} in {_counted(len(artifact['shards']), 'shard')}"
    name = f"{artifact['kind']} {artifact['name']}"
    return Node(name, artifact["kind"], artifact["name"], note, f"{name}: {note}")


def _counted(amount: int, word: str) -> str:
    return f"{charts.number(amount)} {word}{'' if amount == 1 else 's'}"


def _plan_node(hit: Any) -> Node:
    note = f"{charts.number(len(hit.steps))} of {charts.number(hit.num_steps)} steps"
    return Node(f"plan {hit.plan}", "plan", hit.plan, note, f"plan {hit.plan}: {note}, first at step {hit.first}")


def _stages(hits: Sequence[runs.Tainted]) -> dict[str, list[runs.Tainted]]:
    stages: dict[str, list[runs.Tainted]] = {}
    for hit in hits:
        stages.setdefault(hit.checkpoint.run, []).append(hit)
    return stages


def _levels(stages: dict[str, list[runs.Tainted]]) -> list[list[str]]:
    """Stages by how many tainted stages they go back to, so that curves lead to the right."""
    parents = {name: {hit.inherited_from for hit in hits} & stages.keys() for name, hits in stages.items()}

    def depth(name: str) -> int:
        return max((1 + depth(parent) for parent in parents[name]), default=0)

    levels: dict[int, list[str]] = {}
    for name in stages:
        levels.setdefault(depth(name), []).append(name)
    return [levels[level] for level in sorted(levels)]


def _stage_node(name: str, hits: Sequence[runs.Tainted]) -> Node:
    first = min((hit.first_step for hit in hits if hit.first_step is not None), default=None)
    origin = f"from step {first}" if first is not None else f"through {hits[0].inherited_from}"
    note = f"{_counted(len(hits), 'checkpoint')}, {origin}"
    return Node(f"run {name}", "stage", name, note, f"{name}: {note}", hit=True)


def _score_key(result: runs.Evaluation) -> str:
    return f"eval {result.run} {result.checkpoint} {result.title} {result.blind}"


def _score_node(result: runs.Evaluation) -> Node:
    score = "no score" if result.score is None else f"{result.primary} {result.score:.3f}"
    title = f"{result.title}{' (blind)' if result.blind else ''}"
    return Node(
        _score_key(result), result.checkpoint, title, score, f"{result.run} {result.checkpoint} {title}: {score}"
    )


def _card_node(card: dict[str, str]) -> Node:
    return Node(
        f"card {card['name']}", "card", card["name"], card["digest"][:12], f"card {card['name']}, {card['digest']}"
    )


def _tiles(found: Trace) -> list[tuple[str, str]]:
    steps = sum(len(hit.steps) for hit in found.plans)
    tiles = [
        ("Rows of URLs", found.urls_total),
        ("Rows kept", found.urls_kept),
        ("Built samples", found.built_total),
    ]
    tiles += [("Steps that hold any", steps), ("Checkpoints", len(found.checkpoints))]
    tiles += [("Evaluations", len(found.evaluations)), ("Retracted already", found.tombstoned)]
    return [(title, charts.number(amount)) for title, amount in tiles]


def _pictures(found: Trace, workspace: Path) -> list[dict[str, Any]]:
    """Thumbnails of the first kept rows; those whose bytes were purged are told without one."""
    rows = [row for row in found.urls if row.get("decision") == "kept" and row.get("media_bytes")][:PICTURES]
    return [row | {"uri": _thumbnail(workspace, row)} for row in rows]


def _thumbnail(workspace: Path, row: dict[str, Any]) -> str | None:
    tar = workspace / "shards" / row["artifact"] / f"{row['shard']}.tar"
    score = row.get("src_nsfw")
    blurred = isinstance(score, int | float) and score >= BLUR_ABOVE
    try:
        data = read_member(tar, row["media_offset"], row["media_bytes"])
        return data_uri(small_medium(data, row.get("extension"), THUMBNAIL_PX, blurred=blurred))
    except (InputError, MediaError, OSError):
        return None
