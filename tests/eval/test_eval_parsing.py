import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.eval.items import Item
from owl3.eval.parsing import parse_closed, parse_letter, parse_short, parse_yes_no
from owl3.eval.registry import find_task

COLOURS = ["red", "green", "dark green"]


@pytest.mark.parametrize(
    ("raw", "answer", "how"),
    [
        ("red", "red", "strict"),
        (" Red.", "red", "strict"),
        ("It is red, I think", "red", "lenient"),
        ("reddish", None, "failed"),
        ("red or dark green", None, "failed"),
        ("", None, "failed"),
    ],
)
def test_a_closed_answer_is_an_option_or_names_exactly_one(raw: str, answer: str | None, how: str) -> None:
    parsed = parse_closed(raw, COLOURS)
    assert (parsed.answer, parsed.how) == (answer, how)


@pytest.mark.parametrize(
    ("raw", "answer", "how"),
    [
        ("yes", "yes", "strict"),
        ("No.", "no", "strict"),
        ("No, there is not.", "no", "lenient"),
        ("There is no tv", "no", "lenient"),
        ("yes and no", "yes", "lenient"),
        ("yes or no", None, "failed"),
        ("Yes/No?", None, "failed"),
        ("I know nothing", None, "failed"),
    ],
)
def test_yes_and_no_are_words_not_letters(raw: str, answer: str | None, how: str) -> None:
    parsed = parse_yes_no(raw)
    assert (parsed.answer, parsed.how) == (answer, how)


@pytest.mark.parametrize(
    ("raw", "answer", "how"),
    [
        ("B", "B", "strict"),
        ("(B)", "B", "strict"),
        ("B.", "B", "strict"),
        ("B. a dog", "B", "lenient"),
        ("(C) the third image", "C", "lenient"),
        ("The answer is C", "C", "lenient"),
        ("答案是 B", "B", "lenient"),
        ("A man with a bird", "C", "lenient"),
        ("a dog", "B", "lenient"),
        ("E", None, "failed"),
        ("A or B", None, "failed"),
        ("B or C", None, "failed"),
        ("b", "B", "lenient"),
        ("(c).", None, "failed"),
        ("the answer is a.", "A", "lenient"),
        ("Answer: b", "B", "lenient"),
        ("The answer is a dog", "B", "lenient"),
        ("I answer a question", None, "failed"),
        ("（B）", "B", "lenient"),
        ("Ｂ", "B", "lenient"),
        ("'B'", "B", "lenient"),
        ("b) dog", "B", "lenient"),
        ("the letter c", "C", "lenient"),
        ("The dog.", "B", "lenient"),
        ("DOG", "B", "lenient"),
        ("dog and cat", None, "failed"),
        ("B1", None, "failed"),
        ("A. a cat\nB. a dog", None, "failed"),
        ("(A) a cat\n(B) a dog\n(C) a bird", None, "failed"),
        ("A B C", None, "failed"),
        ("A. a cat B. a dog C. a bird. Answer: C", "C", "lenient"),
        ("The answer is A or B", None, "failed"),
        ("答案：A或B", None, "failed"),
        ("The answer is A. No, the answer is B.", "B", "lenient"),
        ("B. A dog", "B", "lenient"),
        ("", None, "failed"),
    ],
)
def test_a_letter_is_read_where_a_reader_would(raw: str, answer: str | None, how: str) -> None:
    parsed = parse_letter(raw, ["a cat", "a dog", "a bird"])
    assert (parsed.answer, parsed.how) == (answer, how)


@pytest.mark.parametrize("raw", ["", "  \n", "?!"])
def test_an_empty_answer_is_never_that_of_options_without_words(raw: str) -> None:
    """LLaVA-Interleave's short questions show no options; nothing said was read as A, and right where A was."""
    assert parse_letter(raw, ["", "", "", ""]).answer is None
    assert parse_closed(raw, ["", "?"]).answer is None
    asked = Item("q", ("what?",), ("a",))
    assert find_task("mantis-eval").record(asked, raw).score == 0.0


@given(st.sampled_from("ABCD"), st.sampled_from(["{}", "({})", "{}.", "{})", " {} "]))
def test_every_way_to_write_a_lone_letter_is_strict(letter: str, form: str) -> None:
    parsed = parse_letter(form.format(letter), ["w", "x", "y", "z"])
    assert (parsed.answer, parsed.how) == (letter, "strict")


@given(st.text(max_size=40))
def test_no_answer_crashes_a_parser(raw: str) -> None:
    for parsed in (parse_closed(raw, COLOURS), parse_yes_no(raw), parse_letter(raw, COLOURS), parse_short(raw)):
        assert (parsed.answer is None) == (parsed.how == "failed")


def test_a_short_answer_is_its_first_line() -> None:
    assert parse_short("two dogs.\nBecause …").answer == "two dogs"


def test_options_and_answers_may_write_their_signs_wide_or_narrow() -> None:
    """Chinese options have wide commas, and models write either."""
    options = ["窗户边吹喇叭", "三个臭皮匠，顶个诸葛亮"]
    for raw in ("俗语是“三个臭皮匠，顶个诸葛亮”。", "三个臭皮匠,顶个诸葛亮"):
        assert parse_letter(raw, options).answer == "B"
