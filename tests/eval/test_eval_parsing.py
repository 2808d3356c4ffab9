import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.eval.parsing import parse_closed, parse_letter, parse_short, parse_yes_no

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
        ("", None, "failed"),
    ],
)
def test_a_letter_is_read_where_a_reader_would(raw: str, answer: str | None, how: str) -> None:
    parsed = parse_letter(raw, ["a cat", "a dog", "a bird"])
    assert (parsed.answer, parsed.how) == (answer, how)


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
