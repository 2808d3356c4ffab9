"""Tables of the European Commission's template for the public summary of training content.

Part 2.3 asks for the domain names that were scraped, the top 10 % by amount of content (providers that are small or
medium-sized: the top 5 % or 1,000, whichever is less). They are computed from the ledger, not estimated.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import duckdb

from owl3.cards import charts
from owl3.cards.figure import Value

if TYPE_CHECKING:
    from owl3.cards.render import Content
    from owl3.manifest import Manifest


def domain_amounts(db: duckdb.DuckDBPyConnection) -> list[tuple[str, int]]:
    """Domains of kept pictures with their amounts, the largest first, ties by name."""
    rows = db.execute(
        "select domain, count(*) as amount from kept where domain is not null group by domain "
        "order by amount desc, domain"
    ).fetchall()
    return [(str(domain), int(amount)) for domain, amount in rows]


def num_listed(num_domains: int, size: str) -> int:
    """How many domains a provider must list."""
    if size == "small":
        return min(math.ceil(num_domains * 0.05), 1000)
    return math.ceil(num_domains * 0.1)


def summary(content: Content) -> dict[str, Any]:
    """What the template of the summary needs beside the card's own page."""
    size = content.facts.provider.size
    listed = content.domains[: num_listed(len(content.domains), size)]
    kept = content.values.get("rows.kept", 0)
    return {
        "modalities": _modalities(content.values),
        "sizes": _sizes(content.values),
        "domains": content.domains,
        "listed": listed,
        "kept": kept,
        "rule": "the top 5 %, at most 1,000 (small provider)" if size == "small" else "the top 10 %",
        "signals": content.values.get("rights.signals", []),
        "collector": f"{collector(content.parents)}, obeying robots.txt and the reservations named in part 3",
        "share": charts.share,
    }


def collector(parents: Sequence[Manifest]) -> str:
    """Which programs collected, as the artifacts' manifests say: clips and some recipes do without img2dataset."""
    return "owl3 with img2dataset" if any("img2dataset" in parent.tools for parent in parents) else "owl3"


def _modalities(values: dict[str, Value]) -> list[str]:
    return ["image", "text", *(["video"] if values.get("samples.frames") else [])]


def _sizes(values: dict[str, Value]) -> list[dict[str, Any]]:
    """Amounts with the ranges that the template offers (less than, between, more than)."""
    asked = (
        ("image", "rows.kept", "pictures", 10**6, 10**9),
        ("video", "samples.frames", "frames", 10**6, 10**9),
        ("text", "samples.trained_tokens", "trained tokens", 10**9, 10**13),
    )
    rows = []
    for modality, name, unit, low, high in asked:
        amount = values.get(name)
        if isinstance(amount, int) and amount:
            inside = f"{low:,} to {high:,}" if amount < high else f"more than {high:,}"
            size = f"less than {low:,}" if amount < low else inside
            rows.append({"modality": modality, "amount": amount, "unit": unit, "range": size})
    return rows
