import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.eval.evaluate import load_items
from owl3.eval.metrics.captions import bleu_4, rouge_l, word_overlap
from owl3.eval.metrics.cider import cider
from owl3.eval.metrics.words import words_of
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


OFFICIAL = [json.loads(line) for line in (Path(__file__).parent / "caption_words.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("row", OFFICIAL, ids=lambda row: row["caption"][:30])
def test_words_are_those_of_the_official_tokenizer(row: dict[str, str]) -> None:
    """Captions of our own; the words are what Stanford CoreNLP's PTBTokenizer and coco-caption's list left of them."""
    assert " ".join(words_of(row["caption"])) == row["words"]


def test_cider_is_what_the_official_code_prints_for_the_same_captions() -> None:
    captions = [row["caption"] for row in OFFICIAL[:24]]
    said = [" ".join(caption.split()[1:]) for caption in captions]
    references = [
        [caption, " ".join(caption.split()[:6]), captions[index - 1]] for index, caption in enumerate(captions)
    ]
    scores = cider(said, references)
    assert sum(scores) / len(scores) == pytest.approx(4.480410132520393, abs=1e-14)
    assert scores[:3] == pytest.approx([5.5166066586, 3.8483170724, 4.2369049671], abs=1e-10)


def test_bleu_and_rouge_are_what_the_official_code_prints_for_the_same_captions() -> None:
    captions = [row["caption"] for row in OFFICIAL[:24]]
    said = [" ".join([*caption.split()[:1], *caption.split()[2:8]]) for caption in captions]
    references = [[" ".join(caption.split()[:6]), captions[index - 1]] for index, caption in enumerate(captions)]
    assert bleu_4(said, references) == pytest.approx(0.479377283024997, abs=1e-9)
    scores = [rouge_l(text, group) for text, group in zip(said, references, strict=True)]
    assert sum(scores) / len(scores) == pytest.approx(0.7770899648900856, abs=1e-14)
    assert (bleu_4(["a"], [["b"]]), rouge_l("", ["a dog"]), rouge_l("a dog runs", ["a dog runs"])) == (0.0, 0.0, 1.0)


def test_chinese_is_counted_by_character_and_line_breaks_are_blanks() -> None:
    assert words_of("一只狗 runs") == ("一", "只", "狗", "runs")
    assert words_of("a dog\r\nruns\u2028away") == ("a", "dog", "runs", "away")
    assert words_of("Plan B. The end, plan B.") == ("plan", "b", "the", "end", "plan", "b.")
    assert word_overlap("a red ball", ["the blue ball", "a red ball."]) == 1.0


@given(st.text())
def test_no_caption_has_words_with_blanks_or_capitals(text: str) -> None:
    for word in words_of(text):
        assert word.split() == [word]
        assert word == word.lower()


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
