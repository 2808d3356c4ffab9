"""What the report's pages show: samples in reading order, pictures before scrolling, and words where nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cards.conftest import make_shards, make_source

from owl3.cards import charts
from owl3.report.build import build_report
from owl3.report.collect import reading_units


def _part(role: str, text: str | None = None) -> dict[str, Any]:
    return {"role": role, "uri": "data:,"} if text is None else {"role": role, "text": text}


def _lines(parts: list[dict[str, Any]]) -> list[list[str]]:
    """Lines of units; a picture is `#`."""
    lines: list[list[str]] = [[]]
    for unit in reading_units(parts):
        if unit["turn"]:
            lines.append([])
        lines[-1].append("".join(part.get("text", "#") for part in unit["parts"]))
    return lines


def test_a_label_stays_with_its_picture_and_an_answer_with_its_question() -> None:
    parts = [
        *(_part("user", "Image 1: "), _part("user"), _part("user", "Image 2: "), _part("user")),
        *(_part("user", "Which is red?"), _part("assistant", "the first")),
        *(_part("user", "And blue?"), _part("assistant", "none")),
    ]
    assert _lines(parts) == [["Image 1: #", "Image 2: #", "Which is red?", "the first"], ["And blue?", "none"]]


def test_each_picture_of_a_document_begins_a_line_with_its_text() -> None:
    parts = [_part("document"), _part("document", "a star"), _part("document"), _part("document", "a ring")]
    assert _lines(parts) == [["#a star"], ["#a ring"]]


def test_frames_of_a_clip_stand_one_behind_the_other() -> None:
    parts = [_part("user"), _part("user"), _part("user", "What happens in this clip?"), _part("assistant", "it turns")]
    assert _lines(parts) == [["#", "#", "What happens in this clip?", "it turns"]]


def test_every_part_is_shown_once_and_in_order() -> None:
    parts = [
        _part(role, text) for role in ("system", "user", "assistant", "document") for text in (None, "x", "y" * 90)
    ]
    assert [part for unit in reading_units(parts) for part in unit["parts"]] == parts


def test_pictures_are_there_before_anybody_scrolls(report: Path) -> None:
    """They are inside of the page: nothing is saved by loading them late, and a printed page would lack them."""
    for page in report.parent.rglob("*.html"):
        assert 'loading="lazy"' not in page.read_text(encoding="utf-8"), page.name


def test_curves_that_are_the_same_are_drawn_once_under_all_their_names() -> None:
    rates = {name: [(0.0, 1.0), (1.0, 2.0)] for name in ("gate", "projector")} | {"vision_model": [(0.0, 0.1)]}
    drawn = charts.lines(rates, caption="rates")
    assert drawn.count("<polyline") == 2
    assert "<bdi>gate, projector</bdi>" in drawn


@pytest.mark.parametrize(("amount", "marked"), [(3, 3), (charts.MARKED_POINTS, charts.MARKED_POINTS), (13, 0)])
def test_a_few_points_are_marked_and_many_are_a_line(amount: int, marked: int) -> None:
    drawn = charts.lines({"score": [(float(n), float(n)) for n in range(amount)]}, caption="scores")
    assert drawn.count("<circle") == marked


def test_a_workspace_with_shards_alone_has_a_report_without_empty_sections(tmp_path: Path) -> None:
    make_shards(tmp_path / "w", make_source(tmp_path / "w"))
    page = build_report(tmp_path / "w", tmp_path / "datacards", tmp_path / "pages").read_text(encoding="utf-8")
    assert 'id="funnel"' in page
    assert 'id="pictures"' in page
    for section in ("samples", "runs", "scores", "cards"):
        assert f'id="{section}"' not in page
        assert f'href="#{section}"' not in page


def test_a_workspace_in_which_nothing_is_finished_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "w" / "sources").mkdir(parents=True)
    page = build_report(tmp_path / "w", tmp_path / "datacards", tmp_path / "pages").read_text(encoding="utf-8")
    assert "Nothing was fetched or built yet" in page
    assert "No finished artifact yet" in page
