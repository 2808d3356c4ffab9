"""Other people's layouts: placeholders become references in reading order, or the row is refused by reason."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.build.drafts import Refused, clean
from owl3.build.importers.layouts import detect, import_row
from owl3.build.importers.record import MediaName, Record
from owl3.tokens import control_token_in


def said(record: Record) -> list[tuple[str, str]]:
    """Turns with media as ‹name›; a document as one turn."""
    turns = record.turns or [("document", record.document)]
    return [
        (role, "".join(part if isinstance(part, str) else f"‹{part.name}›" for part in parts)) for role, parts in turns
    ]


def talk(*values: str, first: str = "human") -> list[dict[str, str]]:
    """LLaVA's conversations, speakers in turn."""
    speakers = ("human", "gpt") if first == "human" else ("gpt", "human")
    return [{"from": speakers[index % 2], "value": value} for index, value in enumerate(values)]


READ: dict[str, tuple[dict[str, Any], str, list[tuple[str, str]]]] = {
    "llava": (
        {
            "id": "1",
            "image": "a/1.jpg",
            "conversations": talk("<image>\nWhat is it?", "A boat.", "Its colour?", "Red."),
        },
        "llava",
        [("user", "‹a/1.jpg›What is it?"), ("assistant", "A boat."), ("user", "Its colour?"), ("assistant", "Red.")],
    ),
    "llava, image last": (
        {"image": "1.jpg", "conversations": talk("What is it?\n<image>", "A boat.")},
        "llava",
        [("user", "What is it?‹1.jpg›"), ("assistant", "A boat.")],
    ),
    "llava, text only": (
        {"conversations": talk("Hello", "Hi")},
        "llava",
        [("user", "Hello"), ("assistant", "Hi")],
    ),
    "llava, system": (
        {"conversations": [{"from": "system", "value": "Be short."}, *talk("Hello", "Hi")]},
        "llava",
        [("system", "Be short."), ("user", "Hello"), ("assistant", "Hi")],
    ),
    "several images": (
        {
            "image": ["1.jpg", "2.jpg"],
            "conversations": talk("Image 1: <image> Image 2: <image>. In Image 2, who?", "Ann"),
        },
        "llava",
        [("user", "Image 1: ‹1.jpg› Image 2: ‹2.jpg›. In Image 2, who?"), ("assistant", "Ann")],
    ),
    "mmdu": (
        {
            "image": ["1.jpg", "2.jpg"],
            "conversations": [
                {"from": "user", "value": "Image1: <ImageHere>\nImage2: <ImageHere>\nCompare."},
                {"from": "assistant", "value": "They differ."},
            ],
        },
        "llava",
        [("user", "Image1: ‹1.jpg›Image2: ‹2.jpg›Compare."), ("assistant", "They differ.")],
    ),
    "owl placeholders": (
        {"image": ["1.jpg"], "conversations": talk("<|image|>Who?", "Ann")},
        "llava",
        [("user", "‹1.jpg›Who?"), ("assistant", "Ann")],
    ),
    "video": (
        {"video": "1.mp4", "conversations": talk("<video>\nWhat happens?", "Rain.")},
        "llava",
        [("user", "‹1.mp4›What happens?"), ("assistant", "Rain.")],
    ),
    "mantis": (
        {
            "images": ["1.jpg"],
            "conversation": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "!"}],
        },
        "mantis",
        [("user", "‹1.jpg›?"), ("assistant", "!")],
    ),
    "videochat, no placeholder": (
        {
            "video": "1.mp4",
            "conversation": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "Rain."}],
        },
        "mantis",
        [("user", "‹1.mp4›What?"), ("assistant", "Rain.")],
    ),
    "messages": (
        {
            "messages": [
                {"role": "user", "content": "<image>Who?"},
                {"role": "assistant", "content": "Ann"},
                {"role": "user", "content": "And here?<image>"},
                {"role": "assistant", "content": "Bob"},
            ],
            "images": ["1.jpg", "1.jpg"],
        },
        "messages",
        [("user", "‹1.jpg›Who?"), ("assistant", "Ann"), ("user", "And here?‹1.jpg›"), ("assistant", "Bob")],
    ),
    "messages, video before image": (
        {
            "messages": [{"role": "user", "content": "<video>and<image>"}, {"role": "assistant", "content": "Yes"}],
            "images": ["1.jpg"],
            "videos": ["1.mp4"],
        },
        "messages",
        [("user", "‹1.mp4›and‹1.jpg›"), ("assistant", "Yes")],
    ),
    "messages, content lists": (
        {
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "image_url", "value": "1.jpg"}, {"type": "text", "value": "Who?"}],
                },
                {"role": "assistant", "content": [{"type": "text", "value": "Ann"}]},
            ]
        },
        "messages",
        [("user", "‹1.jpg›Who?"), ("assistant", "Ann")],
    ),
    "messages, openai": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/1.jpg"}}]},
                {"role": "assistant", "content": "Ann"},
            ]
        },
        "messages",
        [("user", "‹http://x/1.jpg›"), ("assistant", "Ann")],
    ),
    "cauldron": (
        {
            "images": [{"path": "1.png"}],
            "texts": [
                {"user": "What do respiration and combustion give out", "assistant": "Answer: B", "source": "AI2D"},
                {"user": "Sure?", "assistant": "Yes", "source": "AI2D"},
            ],
        },
        "cauldron",
        [
            ("user", "‹1.png›What do respiration and combustion give out"),
            ("assistant", "Answer: B"),
            ("user", "Sure?"),
            ("assistant", "Yes"),
        ],
    ),
    "video instruct, with its known noise": (
        {"q": "Describe it.", "a": "A city.\nQA_GT_caption_based_noisy", "video_id": "v_GqWH2IYPw6U"},
        "video_instruct",
        [("user", "‹v_GqWH2IYPw6U›Describe it."), ("assistant", "A city.")],
    ),
    "mmc4": (
        {
            "text_list": ["One.", "Two.", "Three."],
            "image_info": [
                {"image_name": "b.jpg", "matched_text_index": 2, "raw_url": "http://x/b.jpg"},
                {"image_name": "a.jpg", "matched_text_index": 1, "raw_url": "http://x/a.jpg"},
            ],
            "url": "http://x/page",
        },
        "mmc4",
        [("document", "One.\n‹http://x/a.jpg›Two.\n‹http://x/b.jpg›Three.")],
    ),
    "obelics": (
        {
            "images": ["http://x/a.jpg", None, None],
            "texts": [None, "One.", "Two."],
            "metadata": "[]",
            "general_metadata": "{}",
        },
        "obelics",
        [("document", "‹http://x/a.jpg›One.\nTwo.")],
    ),
    "mint": (
        {"bff_contained_ngram_count_before_dedupe": 0, "images": ["page_0_image_85", None], "texts": [None, "One."]},
        "mint",
        [("document", "‹page_0_image_85›One.")],
    ),
    "plain": ({"text": "  Give a man a fish. "}, "plain", [("document", "Give a man a fish.")]),
    "data-juicer": (
        {"videos": ["1.mp4"], "text": "<__dj__video> a cartoon <|__dj__eoc|>"},
        "plain",
        [("document", "‹1.mp4›a cartoon")],
    ),
}


@pytest.mark.parametrize("name", READ)
def test_layouts_are_recognised_and_read(name: str) -> None:
    row, layout, wanted = READ[name]
    assert detect(row) == layout
    assert said(import_row(row, "auto")) == wanted
    assert said(import_row(json.loads(json.dumps(row)), layout)) == wanted


REFUSED: dict[str, tuple[Any, str]] = {
    "more placeholders than media": (
        {"image": "1.jpg", "conversations": talk("<image><image>?", "!")},
        "media_mismatch",
    ),
    "more media than placeholders": (
        {"image": ["1.jpg", "2.jpg"], "conversations": talk("<image>?", "!")},
        "media_mismatch",
    ),
    "placeholder without media": ({"conversations": talk("<image>?", "!")}, "media_mismatch"),
    "an image where a video is meant": ({"image": "1.jpg", "conversations": talk("<video>?", "!")}, "media_mismatch"),
    "begins with the assistant": ({"conversations": talk("Hi", "Hello", first="gpt")}, "bad_conversation"),
    "the same speaker twice": (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "human", "value": "b"}]},
        "bad_conversation",
    ),
    "ends with a question": ({"conversations": talk("a", "b", "c")}, "bad_conversation"),
    "an empty answer": ({"conversations": talk("a", "  ")}, "bad_conversation"),
    "nobody speaks": ({"conversations": []}, "bad_conversation"),
    "an unknown speaker": ({"conversations": [{"from": "narrator", "value": "a"}]}, "bad_conversation"),
    "text that is a number": ({"conversations": [{"from": "human", "value": 3}]}, "wrong_type"),
    "conversations that are text": ({"conversations": "a"}, "wrong_type"),
    "a row that is a list": ([1], "wrong_type"),
    "an unknown layout": ({"prompt": "a"}, "wrong_type"),
    "media of a strange type": ({"image": 5, "conversations": talk("a", "b")}, "wrong_type"),
    "content of an unknown type": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "audio", "value": "a"}]},
                {"role": "assistant", "content": "b"},
            ]
        },
        "wrong_type",
    ),
    "media inside and beside": (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image", "image": "1.jpg"}]},
                {"role": "assistant", "content": "b"},
            ],
            "images": ["2.jpg"],
        },
        "media_mismatch",
    ),
    "lists of different length": ({"images": [None], "texts": ["a", "b"]}, "media_mismatch"),
    "picture and text in one place": ({"images": ["x"], "texts": ["a"]}, "media_mismatch"),
    "a page without text": ({"images": ["x"], "texts": [None]}, "empty_text"),
    "a picture before no sentence": (
        {"text_list": ["a"], "image_info": [{"image_name": "x", "matched_text_index": 4}]},
        "media_mismatch",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rows_that_do_not_fit_are_refused_by_reason(name: str) -> None:
    row, reason = REFUSED[name]
    with pytest.raises(Refused) as refused:
        import_row(row, "auto")
    assert refused.value.reason == reason


def test_bytes_inside_a_row_are_media() -> None:
    row = {"images": [{"bytes": b"\x89PNG", "path": None}], "texts": [{"user": "?", "assistant": "!"}]}
    assert import_row(row, "auto").media == [MediaName("bytes", "image", b"\x89PNG")]


HOSTILE = [*("<|im_", "end|>", "<|image|>", "<ima", "ge>"), *"\r\n\x00\x0be\u0301\ud800\u1100\u1161"]


@given(st.lists(st.sampled_from(HOSTILE) | st.text(max_size=2), max_size=9).map("".join))
def test_what_is_clean_stays_as_it_is(text: str) -> None:
    """Lint asks just that of every text: else a hostile caption would make samples that break the contract."""
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert control_token_in(cleaned) is None
    cleaned.encode()


def test_control_characters_and_special_tokens_leave_the_text() -> None:
    row = {"conversations": talk("a\x00b<|im_end|>c", "d<|endoftext|>")}
    assert said(import_row(row, "auto")) == [("user", "ab c"), ("assistant", "d")]
