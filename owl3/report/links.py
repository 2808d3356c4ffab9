"""How many URLs answer, by date and cause: when they were fetched, and each time they were asked again.

Dates stand in the evidence that curation keeps beside its tables and in `rechecks.jsonl`, which `owl3 rights --recheck`
adds to. Cards leave them out: a card says the same whenever its corpus is fetched.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
from markupsafe import Markup

from owl3.cards import charts
from owl3.cards.tables import views_of
from owl3.ledger import REASONS
from owl3.recheck import RECHECKS

DATES_SHOWN = 12
"""The newest ones."""

_HEAD = ("date", "occasion", "asked", "answered", "not reachable")


@dataclass(frozen=True)
class Day:
    """What the hosts said on one date.

    Attributes:
        causes: Amounts by drop reason, the most frequent first.
    """

    date: str
    occasion: str
    asked: int
    causes: Mapping[str, int]


def link_health(db: duckdb.DuckDBPyConnection, workspace: Path) -> list[Day]:
    """Every date on which URLs were asked, the oldest first."""
    days: dict[str, dict[str, int]] = {}
    if {"evidence", "shard_rows"} <= views_of(db):
        rows = db.execute(
            "select left(e.time, 10) as day, case when r.stage = 'fetch' then r.reason else '' end as cause, "
            "count(*) as amount from evidence e join shard_rows r using (artifact, sample_id) "
            "where e.time is not null group by day, cause order by day, amount desc, cause"
        ).fetchall()
        for day, cause, amount in rows:
            days.setdefault(str(day), {})[str(cause)] = int(amount)
    found = [
        Day(day, "fetched", sum(causes.values()), {cause: n for cause, n in causes.items() if cause})
        for day, causes in days.items()
    ]
    return sorted([*found, *_rechecks(workspace)], key=lambda day: (day.date, day.occasion != "fetched"))[-DATES_SHOWN:]


def _rechecks(workspace: Path) -> list[Day]:
    path = workspace / RECHECKS
    if not path.is_file():
        return []
    rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [Day(row["time"][:10], "asked again", row["asked"], row["gone"]) for row in rows]


def draw(days: Sequence[Day]) -> list[Markup]:
    """A table of dates, and the causes of each as bars; nothing when nothing was ever asked."""
    if not days:
        return []
    rows = []
    for day in days:
        gone = sum(day.causes.values())
        rows.append((day.date, day.occasion, day.asked, day.asked - gone, charts.share(gone, day.asked)))
    caption = "Not reachable, by date and cause" if len(days) > 1 else f"Not reachable on {days[0].date}, by cause"
    bars = [
        (f"{day.date} {cause}" if len(days) > 1 else cause, amount)
        for day in days
        for cause, amount in sorted(day.causes.items(), key=lambda entry: (-entry[1], entry[0]))
    ]
    hints = {label: REASONS.get(label.split(" ")[-1], "") for label, _ in bars}
    drawn = [charts.table(rows, caption="URLs that answered, by date", head=_HEAD)]
    if bars:
        asked = float(sum(day.asked for day in days))
        drawn.append(charts.bars(bars, caption=caption, hints=hints, total=asked))
    return drawn
