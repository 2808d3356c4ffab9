"""What captions say."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.curate.captions import is_boilerplate, language_detector, redact, repetition
from owl3.curate.contamination import Benchmark, Fingerprints, hash_words, normalised


@pytest.mark.parametrize(
    "caption",
    [
        *(
            "IMG_1234",
            "DSC00123",
            "img (3)",
            "Screenshot 2024-01-01",
            "photo.jpg",
            "my-holiday_07.JPG",
            "Logo copy.png",
        ),
        *("image not found", "No image available", "Image", "Untitled", "404 Not Found", "null", "coming soon"),
        *("Click to enlarge image", "暂无图片", "点击查看大图", "Photo unavailable"),
    ],
)
def test_boilerplate(caption: str) -> None:
    assert is_boilerplate(caption)


@pytest.mark.parametrize(
    "caption",
    [
        *("a dog", "Image of a red barn in winter", "photo of two people", "tamale pie with serving spoon.jpg"),
        *("Hyundai North American Headquarters", "No parking sign", "一个男人在打篮球", "Coming home"),
    ],
)
def test_captions_that_say_something(caption: str) -> None:
    assert not is_boilerplate(caption)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("write to jane.doe+x@mail.example.org now", "write to [email] now"),
        ("call +1 555-123-4567 today", "call [phone] today"),
        ("call (020) 7946-0958", "call [phone]"),
        ("see https://a.example/b?c=1 there", "see [url] there"),
        ("see www.a.example", "see [url]"),
        ("联系jane@mail.example.cn购买", "联系[email]购买"),
        ("电话010-1234-5678号", "电话[phone]号"),
        ("见http://a.example/b 更多", "见[url] 更多"),
        ("69 70 71 72 73 Suburban gasket", "69 70 71 72 73 Suburban gasket"),
        ("taken 2012-06-01 at 12.30", "taken 2012-06-01 at 12.30"),
        ("600x447 picture of 1920-1080", "600x447 picture of 1920-1080"),
        ("price 12.50 each", "price 12.50 each"),
    ],
)
def test_personal_data_is_taken_out_and_numbers_are_left(caption: str, expected: str) -> None:
    assert redact(caption, urls=True, personal=True) == expected


@given(st.text())
def test_redacting_twice_changes_nothing_more(caption: str) -> None:
    once = redact(caption, urls=True, personal=True)
    assert redact(once, urls=True, personal=True) == once


def test_what_is_to_be_kept_is_kept() -> None:
    text = "a@b.example http://a.example"
    assert redact(text, urls=False, personal=False) == text


@given(st.text())
def test_repetition_is_a_share(caption: str) -> None:
    assert 0 <= repetition(caption) <= 1


def test_languages_are_told_apart() -> None:
    detect = language_detector(["en", "zh", "de"])
    assert detect("a dog is running over the green field") == "en"
    assert detect("一个男人在打篮球") == "zh"
    assert detect("ein Hund läuft über die grüne Wiese") == "de"
    assert detect("12345") is None


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ValueError, match="unknown languages xx"):
        language_detector(["en", "xx"])


def quoted(caption: str, *texts: str, ngram: int = 5) -> bool:
    named: dict[str, dict[int, frozenset[str]]] = {"grams": {}, "whole": {}}
    for text in texts:
        words = normalised(text)
        starts = range(len(words) - ngram + 1)
        named["whole"][hash_words(words)] = frozenset({"q"})
        named["grams"] |= {hash_words(words[start : start + ngram]): frozenset({"q"}) for start in starts}
    config = Benchmark(name="b", texts=("x",), ngram=ngram)
    prints = Fingerprints(config, {}, np.zeros(0, np.uint64), [], named["grams"], named["whole"])
    return prints.quoted(caption) == {"q"}


def test_a_caption_that_quotes_a_benchmark_is_found() -> None:
    question = "What colour is the large object to the left of the small cube?"
    assert quoted("They ask: what COLOUR is the -- large object, ha", question)
    assert not quoted("what colour is the sky", question)
    assert quoted("A dog.", "a dog")  # short texts: the whole caption
    assert not quoted("a dog barks", "a dog")
    assert quoted("这个大的物体是什么颜色", "大的物体是什么")


@pytest.mark.parametrize(
    "text", ["img{_}x", "img{1}x", "logo{!}x", "{a.}", "a@{b.}", "{12-34-}", "{www.}", "{a@}", "{1 }"]
)
def test_no_caption_takes_the_square_of_its_length(text: str) -> None:
    begin, _, rest = text.partition("{")
    piece, _, end = rest.partition("}")
    caption = begin + piece * (100_000 // len(piece)) + end
    started = time.process_time()
    is_boilerplate(caption)
    redact(caption, urls=True, personal=True)
    assert time.process_time() - started < 2  # it was a minute
