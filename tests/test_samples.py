"""What a sample promises: reading order, no placeholders in text, ids that depend on content alone."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from owl3 import samples
from owl3.config import canonical_json
from owl3.samples import Sample, Segment, Turn, built_sample_id, canonical_url, url_sample_id

_ID = "0" * 32


def _sample(segments: list[Segment], turns: list[Turn] | None = None) -> Sample:
    made = tuple(segments)
    return Sample(id=_ID, kind="instruct", segments=made, turns=tuple(turns or ()), source="s", licence="CC0-1.0")


def test_media_out_of_reading_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="reading order"):
        _sample([Segment(image=1), Segment(image=0)])


def test_text_holding_a_placeholder_is_refused() -> None:
    with pytest.raises(ValidationError, match="placeholder"):
        _sample([Segment(text="look: <|image|>")])


def test_turns_must_cover_all_segments() -> None:
    with pytest.raises(ValidationError, match="cover all segments"):
        _sample([Segment(image=0), Segment(text="a")], [Turn(role="user", start=0, end=1)])


def test_a_frame_needs_its_time() -> None:
    with pytest.raises(ValidationError, match="time_s"):
        Segment(frame=0)


def test_json_round_trips_and_is_canonical() -> None:
    segments = [Segment(image=0), Segment(text="ein Käfer"), Segment(frame=1, time_s=0.5)]
    turns = [Turn(role="user", start=0, end=1), Turn(role="assistant", start=1, end=3)]
    sample = _sample(segments, turns).model_copy(update={"meta": {"target": [1, 2], "at": 0.25}})
    dumped = sample.model_dump(mode="json", exclude_none=True)
    assert sample.to_json() == canonical_json(dumped)
    again = Sample.model_validate_json(sample.to_json())
    assert again == sample
    assert again.to_json() == sample.to_json()


@pytest.mark.parametrize(
    ("spelt", "canonical"),
    [
        ("HTTP://Example.COM:80/a", "http://example.com/a"),
        ("https://example.com:443", "https://example.com/"),
        ("https://example.com:8443/x", "https://example.com:8443/x"),
        ("http://example.com/a b?q=ü#part", "http://example.com/a%20b?q=%C3%BC"),
        ("http://example.com/A?b=2&a=1", "http://example.com/A?b=2&a=1"),
    ],
)
def test_a_url_is_spelt_one_way(spelt: str, canonical: str) -> None:
    assert canonical_url(spelt) == canonical
    assert canonical_url(canonical) == canonical


@given(st.text(max_size=40), st.text(max_size=40))
def test_ids_tell_url_and_caption_apart(left: str, right: str) -> None:
    """Moving a character from one part to the other is another sample."""
    first = url_sample_id("http://example.com/x", left + right)
    assert first == url_sample_id("http://EXAMPLE.com/x#y", left + right)
    assert built_sample_id("b", "1", 0, (left, right)) != built_sample_id("b", "1", 0, (left + right, ""), "x")


def test_the_order_of_parents_is_part_of_an_id() -> None:
    assert built_sample_id("b", "1", 0, ("p", "q")) != built_sample_id("b", "1", 0, ("q", "p"))


_URLS = st.from_regex(r"https?://[a-zA-Z0-9._:@-]{1,20}(/[ -~]{0,20})?(\?[ -~é]{0,9})?(#[a-z]{0,3})?", fullmatch=True)


@given(_URLS)
def test_a_url_that_is_told_to_be_canonical_at_a_glance_is(url: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "_CANONICAL_URL", re.compile("(?!)"))
        try:
            taken_apart = canonical_url(url)
        except ValueError:
            taken_apart = None
    if taken_apart is None:
        with pytest.raises(ValueError, match=r".*"):
            canonical_url(url)
    else:
        assert canonical_url(url) == taken_apart
