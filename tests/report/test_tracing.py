"""A trace as a page: what leads to what, and nothing of a stranger's text that a browser would run."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from cards.conftest import fill, make_card, url

from owl3.cards.subjects import Subject, understand
from owl3.cards.trace import Trace, trace
from owl3.report.graph import NODE_WIDTH, Node, draw_graph
from owl3.report.tracing import NODES_PER_COLUMN, draw_trace, trace_graph, write_trace_page


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("traced")
    fill(folder / "workspace")
    make_card(folder / "workspace", folder / "datacards")
    return folder


@pytest.fixture(scope="module")
def found(world: Path) -> Trace:
    return trace(world / "workspace", understand(url(3)), world / "datacards")


def test_the_drawing_leads_from_the_url_to_the_scores(found: Trace) -> None:
    columns, edges = trace_graph(found)
    way = ["url 0", "shards tiny", "samples pairs", "plan toy/pretrain", "run toy/pretrain", "run toy/sft"]
    assert set(itertools.pairwise(way)) <= set(edges)
    assert any(start == "run toy/sft" and end.startswith("eval toy/sft") for start, end in edges)
    assert columns[-1][-1].key == "card demo/1.0.0"


def test_every_curve_goes_to_the_right(found: Trace) -> None:
    curves = re.findall(r'd="M(\d+) \d+C\d+ \d+ \d+ \d+ (\d+) \d+"', draw_trace(found))
    assert len(curves) > 6
    assert all(int(start) < int(end) for start, end in curves)


def test_a_column_that_grows_long_says_how_many_more(world: Path) -> None:
    columns, _ = trace_graph(trace(world / "workspace", understand("CC0-1.0")))
    assert len(columns[0]) == NODES_PER_COLUMN
    assert columns[0][-1].name == "7 more"


def test_the_page_shows_the_picture_and_asks_for_nothing(world: Path, found: Trace, tmp_path: Path) -> None:
    write_trace_page(tmp_path / "trace.html", found, world / "workspace")
    text = (tmp_path / "trace.html").read_text()
    assert text.count('<img src="data:image/jpeg') == 1
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text)


def test_what_is_nowhere_says_so(world: Path, tmp_path: Path) -> None:
    nothing = trace(world / "workspace", understand("http://elsewhere.example.org/a.jpg"))
    write_trace_page(tmp_path / "trace.html", nothing, world / "workspace")
    assert "Nothing in the workspace holds it" in (tmp_path / "trace.html").read_text()


def test_hostile_words_stay_words(tmp_path: Path) -> None:
    bad = "</text><script>alert(1)</script>\u202e"
    drawn = draw_graph([[Node("a", bad, bad, bad, bad)]], [], label=bad, description=bad)
    assert "<script" not in drawn
    assert "\u202e" not in drawn.split("</title>")[1]
    row = {"url": bad, "domain": bad, "caption": bad, "licence": bad, "source": bad, "decision": "dropped"}
    row |= {"reason": "not_found", "artifact": "web", "shard": "00000", "sample_id": "0" * 32}
    found = Trace(Subject("url", bad, (bad,)), urls=[row], urls_total=1)
    write_trace_page(tmp_path / "trace.html", found, tmp_path)
    text = (tmp_path / "trace.html").read_text()
    assert "<script" not in text
    assert "\u202e" not in text


def test_a_parent_in_the_same_column_is_reached_by_a_bow_on_the_right() -> None:
    """A line from its right side to the other's left would go back through both boxes."""
    column = [Node("a", "", "", "", ""), Node("b", "", "", "", "")]
    drawn = draw_graph([column], [("a", "b")], label="", description="")
    start, bow, end = map(int, re.findall(r'd="M(\d+) \d+C(\d+) \d+ \d+ \d+ (\d+) \d+"', drawn)[0])
    assert start == end < bow


def test_boxes_do_not_overlap() -> None:
    drawn = draw_graph(
        [[Node("a", "", "", "", "")], [Node("b", "", "", "", "")]], [("a", "b")], label="", description=""
    )
    left = [int(x) for x in re.findall(r'<rect x="(\d+)"', drawn)]
    assert left[1] - left[0] > NODE_WIDTH
