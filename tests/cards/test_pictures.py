"""Sizes of pictures read from their first segments are those that a decoder tells."""

from __future__ import annotations

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from owl3.cards.pictures import size_and_format
from owl3.media import MediaError


def _encoded(width: int, height: int, **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("L" if options.pop("grey", False) else "RGB", (width, height), 90).save(out, **options)
    return out.getvalue()


@settings(max_examples=20, deadline=None)
@given(width=st.integers(1, 900), height=st.integers(1, 900), progressive=st.booleans(), grey=st.booleans())
def test_the_size_of_a_jpeg_is_the_decoders(width: int, height: int, progressive: bool, grey: bool) -> None:
    data = _encoded(width, height, format="JPEG", progressive=progressive, grey=grey, comment="x" * (width % 300))
    assert size_and_format(data) == (width, height, "jpeg")


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF"])
def test_other_formats_are_left_to_the_decoder(form: str) -> None:
    assert size_and_format(_encoded(31, 17, format=form)) == (31, 17, form.lower())


@pytest.mark.parametrize("cut", [0, 2, 5, 20, 100])
def test_a_jpeg_cut_before_its_frame_is_no_picture(cut: int) -> None:
    with pytest.raises(MediaError):
        size_and_format(_encoded(40, 30, format="JPEG")[:cut])
