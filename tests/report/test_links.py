"""Link health: what answered, by date and cause, from evidence and from every recheck."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cards.conftest import DROPS, NUM_URLS, make_shards, make_source

from owl3.ledger import connect
from owl3.recheck import RECHECKS
from owl3.report.links import Day, draw, link_health


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("links")
    make_shards(workspace, make_source(workspace))
    return workspace


def test_a_fetch_is_one_date_with_its_causes(fetched: Path) -> None:
    with connect(fetched) as db:
        found = link_health(db, fetched)
    causes = {reason: 1 for stage, reason in DROPS.values() if stage == "fetch"}
    assert found == [Day("2026-11-20", "fetched", NUM_URLS, causes)]


def test_a_recheck_is_a_later_date(fetched: Path, tmp_path: Path) -> None:
    entry = {"time": "2026-12-01T00:00:00+00:00", "hosts": 2, "asked": 4, "opt_outs": 1, "gone": {"not_found": 3}}
    (tmp_path / RECHECKS).write_text(json.dumps(entry) + "\n")
    with connect(fetched) as db:
        days = link_health(db, tmp_path)
    assert days[-1] == Day("2026-12-01", "asked again", 4, {"not_found": 3})
    drawn = "".join(draw(days))
    assert "2026-12-01 not_found" in drawn
    assert "75.0 %" in drawn
    assert "404 or 410" in drawn


def test_nothing_is_drawn_of_nothing() -> None:
    assert draw([]) == []
