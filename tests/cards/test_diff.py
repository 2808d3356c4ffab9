"""Two versions of a card, and what is told about what changed."""

from __future__ import annotations

from pathlib import Path

from owl3.cards import purge, retract
from owl3.cards.config import CardConfig
from owl3.cards.diff import diff
from owl3.cards.render import card
from owl3.cards.subjects import understand

from .conftest import LICENCES


def test_a_card_does_not_differ_from_itself(datacards: Path) -> None:
    folder = datacards / "demo" / "1.0.0"
    assert diff(folder, folder) == []


def test_a_retraction_shows_in_words_and_numbers(workspace: Path, datacards: Path) -> None:
    impact = retract.assess(workspace, [understand("birds.example.org")])
    retract.bury(workspace, impact, "asked for")
    purge.purge(workspace, impact.ids)
    card(CardConfig(name="demo", version="1.1.0", shards=("tiny",), samples=("pairs",)), workspace, datacards)
    changes = {change.subject: change for change in diff(datacards / "demo" / "1.0.0", datacards / "demo" / "1.1.0")}
    assert "gone, 4 before" in changes["domains.top.birds.example.org"].sentence
    assert changes["rows.kept"].sentence == "Pictures kept: 26 before, 22 now (-15.4%)"
    assert "new, 4" in changes["rows.drops.takedown: tombstoned"].sentence
    assert "was made anew" in changes["shards tiny"].sentence
    assert f"rows.licences.{LICENCES[0]}" in changes
    assert "rows.seen" not in changes  # nothing was lost from the ledger


def test_an_edited_fact_is_told(workspace: Path, datacards: Path) -> None:
    facts = datacards / "demo" / "facts.yaml"
    facts.write_text(facts.read_text().replace("English only", "English and French"))
    card(CardConfig(name="demo", version="1.0.1", shards=("tiny",), samples=("pairs",)), workspace, datacards)
    changes = diff(datacards / "demo" / "1.0.0", datacards / "demo" / "1.0.1")
    assert [change.subject for change in changes] == ["facts.biases"]
