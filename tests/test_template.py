"""The text of a conversation, as the three releases were trained to read it."""

import doctest
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import owl3.template
import owl3.tiling
from owl3.samples import Segment, Turn
from owl3.template import RELEASES, Chunk, render, tokenize
from owl3.tokens import train_tiny

TINY = train_tiny(["what is it"], 400)
ASK = [Segment(image=0), Segment(text="What?"), Segment(text="A cat.")]
TURNS = [Turn(role="user", start=0, end=2), Turn(role="assistant", start=2, end=3)]


def text_of(chunks: list[Chunk]) -> str:
    return "".join(chunk.text for chunk in chunks)


@pytest.mark.parametrize("module", [owl3.template, owl3.tiling])
def test_examples_in_docstrings_hold(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


def test_a_conversation_without_system_prompt_begins_with_an_empty_one() -> None:
    assert text_of(render(ASK, TURNS)) == (
        "<|im_start|>system\n<|im_end|>"
        "\n<|im_start|>user\n<|image|>What?<|im_end|>"
        "\n<|im_start|>assistant\nA cat.<|im_end|><|endoftext|>"
    )


def test_a_system_prompt_stands_first_and_every_answer_is_trained() -> None:
    segments = [Segment(text=word) for word in ("Be brief.", "Hi", "Hello", "Bye", "Ciao")]
    roles = ("system", "user", "assistant", "user", "assistant")
    turns = [Turn.model_validate({"role": role, "start": i, "end": i + 1}) for i, role in enumerate(roles)]
    chunks = render(segments, turns)
    assert text_of(chunks).startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    assert [chunk.text for chunk in chunks if chunk.trained] == [
        "Hello<|im_end|>",
        "<|endoftext|>",
        "Ciao<|im_end|>",
        "<|endoftext|>",
    ]


def test_for_generation_the_last_answer_is_left_open() -> None:
    prompt = render(ASK, TURNS, for_generation=True)
    assert text_of(prompt).endswith("What?<|im_end|>\n<|im_start|>assistant\n")
    assert render(ASK[:2], TURNS[:1], for_generation=True) == prompt
    assert not any(chunk.trained for chunk in prompt)


def test_plain_style_is_content_and_answer_side_by_side() -> None:
    assert render(ASK, TURNS, style="plain") == [
        Chunk("<|image|>", medium=0),
        Chunk("What?"),
        Chunk("A cat.", trained=True),
        Chunk("<|endoftext|>", trained=True),
    ]
    assert text_of(render(ASK, TURNS, style="plain", for_generation=True)) == "<|image|>What?"


def test_a_document_is_all_trained_but_its_placeholders() -> None:
    chunks = render([Segment(text="A"), Segment(image=0), Segment(text="B"), Segment(text="C")], [])
    assert chunks == [
        Chunk("A", trained=True),
        Chunk("<|image|>", medium=0),
        Chunk("BC", trained=True),
        Chunk("<|endoftext|>", trained=True),
    ]


def test_cut_images_are_written_as_each_release_did() -> None:
    segments = [Segment(image=0), Segment(image=1)]
    turn = [Turn(role="user", start=0, end=2)]
    grids = {0: (2, 2)}
    assert text_of(render(segments, turn, release="240728", style="plain", grids=grids)) == (
        "Cut to 2 rows 2 columns with a global view\n"
        "subimg(0,0)<|image|> subimg(0,1)<|image|>\nsubimg(1,0)<|image|> subimg(1,1)<|image|>\n"
        "global_view<|image|><|image|>"
    )
    for release in ("241014", "241101"):
        assert text_of(render(segments, turn, release=release, style="plain", grids=grids)) == (
            "<|start_cut|>2*2\n<|image|> <|image|>\n<|image|> <|image|>\n<|image|><|end_cut|><|image|>"
        )


def test_frames_are_one_video_until_the_time_goes_back() -> None:
    times = (0.0, 1.5, 1.5, 0.5)
    segments = [Segment(frame=i, time_s=t) for i, t in enumerate(times)] + [Segment(image=4)]
    turn = [Turn(role="user", start=0, end=5)]
    assert text_of(render(segments, turn, release="240728", style="plain")) == "<|image|>" * 5
    assert text_of(render(segments, turn, release="241014", style="plain")) == (
        "<|start_video_frame|><|image|><|image|><|image|><|end_video_frame|>"
        "<|start_video_frame|><|image|><|end_video_frame|><|image|>"
    )


def test_chunks_are_tokenised_alone() -> None:
    """A merge across a placeholder would move where images stand."""
    chunks = [Chunk("is"), Chunk("<|image|>", medium=0), Chunk("it")]
    tokenized = tokenize(chunks, TINY)
    assert tokenized.input_ids == [*TINY.encode("is"), *TINY.placeholder_ids, *TINY.encode("it")]
    assert tokenized.image_starts == [len(TINY.encode("is"))]


def test_an_unknown_release_is_named() -> None:
    with pytest.raises(ValueError, match="unknown release '250101': one of 240728, 241014, 241101"):
        render(ASK, TURNS, release="250101")  # type: ignore[arg-type]


@given(max_tokens=st.integers(0, 90), release=st.sampled_from(RELEASES), cut=st.booleans())
def test_truncation_never_cuts_a_placeholder_nor_keeps_part_of_an_image(
    max_tokens: int, release: Any, cut: bool
) -> None:
    chunks = render([*ASK[:2], Segment(image=1), ASK[2]], [
        Turn(role="user", start=0, end=3), Turn(role="assistant", start=3, end=4)
    ], release=release, grids={1: (2, 2)} if cut else {})  # fmt: skip
    whole, short = tokenize(chunks, TINY), tokenize(chunks, TINY, max_tokens)
    assert len(short.input_ids) == len(short.trained) <= max_tokens
    assert short.input_ids == whole.input_ids[: len(short.input_ids)]
    assert short.image_starts == whole.image_starts[: len(short.image_starts)]
    for medium in set(short.media):
        assert short.media.count(medium) == whole.media.count(medium)
    for start in short.image_starts:
        assert tuple(short.input_ids[start : start + 5]) == TINY.placeholder_ids
    text = TINY.decode(short.input_ids, skip_special_tokens=False)
    assert text.count("<|image|>") == len(short.image_starts)
