"""Captions come from strangers. They may hold scripts, text that lies about its order, and a megabyte of nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup
from PIL import Image

from owl3.cards import charts
from owl3.cards.pictures import data_uri, from_data_uri, pixel_distance, small_picture
from owl3.cards.render import template_environment
from owl3.cards.words import markdown, shown

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></body>{{ 7 * 7 }}{% raw %}",
    "a\u202egnp.exe\u2066 b\u200b\u2069",
    "&lt;b&gt; \x00\x1b[31m",
    "| a | b |\n---\n# heading [x](javascript:alert(1))",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_chart_lets_markup_through(text: str) -> None:
    rows = [[text, 3]]
    drawn = [
        charts.bars(rows, caption=text, hints={text: text}),
        charts.table(rows, caption=text, head=(text,)),
        charts.lines({text: [(0, 1), (1, 2)]}, caption=text, x_label=text),
        charts.histogram([[0, 1, 2]], caption=text),
        charts.paragraph(text),
    ]
    for markup in drawn:
        lowered = str(markup).lower()
        for forbidden in ("<script", "<img src=x", "</style>", "</body>"):
            assert forbidden not in lowered


@pytest.mark.parametrize("text", HOSTILE)
def test_the_templates_escape_what_they_are_given(text: str) -> None:
    page = template_environment().from_string("<p>{{ text | shown }}</p>").render(text=text)
    assert page.count("<") == 2
    assert "49" not in page


@given(st.text(max_size=400))
def test_nothing_hidden_stays_hidden(text: str) -> None:
    out = shown(text)
    assert not any(character in out for character in "\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u200b\u0000")
    assert "\n" not in out
    assert "|" not in markdown(text).replace("\\|", "")


def test_a_huge_text_is_cut_and_says_so() -> None:
    out = shown("x" * 1_000_000)
    assert len(out) < 400
    assert out.endswith("… (1,000,000 characters)")


@given(st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=60))
def test_curves_never_leave_their_frame(values: list[float]) -> None:
    markup = str(charts.lines({"a": list(enumerate(values))}, caption="c"))
    points = markup.split('points="')[1].split('"')[0].split()
    for point in points:
        x, y = map(float, point.split(","))
        assert 55 <= x <= 629
        assert 9 <= y <= 205


def test_a_thumbnail_holds_pixels_alone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "Maker of the camera"
    exif[0x8825] = {1: "N", 2: (48.0, 12.0, 0.0)}
    out = io.BytesIO()
    Image.new("RGB", (320, 200), "red").save(out, "JPEG", exif=exif, comment=b"a secret")
    small = small_picture(out.getvalue() + b"trailing secret", 64)
    assert b"Maker" not in small
    assert b"secret" not in small
    assert b"Exif" not in small
    with Image.open(io.BytesIO(small)) as image:
        assert image.size == (64, 40)
        assert not image.getexif()


def test_a_blurred_thumbnail_hides_detail() -> None:
    image = Image.new("RGB", (128, 128), "white")
    image.paste((0, 0, 0), (60, 60, 68, 68))
    out = io.BytesIO()
    image.save(out, "PNG")
    sharp, blurred = small_picture(out.getvalue(), 128), small_picture(out.getvalue(), 128, blurred=True)

    def darkest(data: bytes) -> int:
        with Image.open(io.BytesIO(data)) as opened:
            return int(opened.convert("L").getextrema()[0])

    assert darkest(sharp) < 40
    assert darkest(blurred) > 128


def test_data_uris_survive_a_round_trip() -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "blue").save(out, "JPEG")
    assert from_data_uri(data_uri(out.getvalue())) == out.getvalue()
    assert pixel_distance(out.getvalue(), out.getvalue()) == 0


def test_numbers_are_written_the_same_way_everywhere() -> None:
    assert [charts.number(v) for v in (12345, 0.2834, 1.2e-05, None, 3.0)] == ["12,345", "0.283", "1.2e-05", "-", "3"]
    assert charts.share(1, 100_000) == "<0.1 %"
    assert charts.num_bytes(1536) == "1.5 KiB"
    assert isinstance(charts.bars([["a", 1]], caption="x"), Markup)


def test_what_stands_in_backticks_is_code_and_stays_escaped() -> None:
    assert charts.paragraph("ask `owl3 audit <x>`") == "<p>ask <code>owl3 audit &lt;x&gt;</code></p>"
    assert charts.paragraph("one ` alone") == "<p>one ` alone</p>"
