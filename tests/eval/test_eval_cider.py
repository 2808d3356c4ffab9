from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.eval.evaluate import load_items
from owl3.eval.metrics.cider import cider, word_overlap, words_of
from owl3.eval.registry import find_task

SENTENCES = [
    "a red ball on the grass",
    "two dogs run along a beach",
    "a bowl of soup with bread",
    "snow on high mountains",
]


def test_a_caption_equal_to_its_only_reference_scores_ten() -> None:
    assert cider(SENTENCES, [[s] for s in SENTENCES]) == pytest.approx([10.0] * 4)


def test_a_caption_of_other_words_scores_nothing() -> None:
    assert cider(["xyz"] * 4, [[s] for s in SENTENCES]) == [0.0] * 4


def test_worked_by_hand() -> None:
    """Two pictures; the caption shares the unigram "ball" alone, once, of two words, with idf log 2."""
    scores = cider(["ball", "sea"], [["red ball"], ["sea"]])
    # n = 1: (w * w) / (w * sqrt(2) w) = 1/sqrt(2); lengths in bigrams: 0 against 1.
    penalty = 2.718281828459045 ** (-1 / 72)
    assert scores[0] == pytest.approx(10 / 4 * 2**-0.5 * penalty)
    assert scores[1] == pytest.approx(10 / 4)


@given(st.permutations(range(4)))
def test_the_order_of_pictures_changes_no_score(order: list[int]) -> None:
    said = ["a ball on grass", "dogs on a beach", "soup and bread", "a mountain in snow"]
    scores = cider(said, [[s, "a thing"] for s in SENTENCES])
    again = cider([said[i] for i in order], [[SENTENCES[i], "a thing"] for i in order])
    assert again == pytest.approx([scores[i] for i in order])


def test_words() -> None:
    assert words_of("A man's dog -- it RUNS!") == ["a", "man", "'s", "dog", "it", "runs"]
    assert words_of("They don’t, can't and cannot.") == ["they", "do", "n't", "ca", "n't", "and", "can", "not"]
    assert words_of("It's 5 o'clock") == ["it", "'s", "5", "o'clock"]
    assert words_of("a t-shirt for $3.50, 1,000 of them (100%)") == [
        *("a", "t-shirt", "for", "$", "3.50", "1,000", "of", "them", "100", "%"),
    ]
    assert words_of("一只狗 runs") == ["一", "只", "狗", "runs"]
    assert word_overlap("a red ball", ["the blue ball", "a red ball."]) == 1.0


@pytest.mark.shared
def test_real_captions_are_read_with_their_photos(shared_data: Callable[[str], Path]) -> None:
    items = load_items(find_task("coco-captions"), shared_data("data/coco"))
    assert len(items) == 50
    assert all(len(item.answers) >= 5 for item in items)
    assert all(medium.path is not None and medium.path.is_file() for item in items for medium in item.media())
    people = [item.answers[0] for item in items]
    scores = cider(people, [item.answers[1:] for item in items])
    assert 0.5 < sum(scores) / len(scores) < 1.5  # published agreement of people on COCO is about 0.85
    clips = load_items(find_task("msrvtt-captions"), shared_data("data/video_captions"))
    assert len(clips) > 200
