"""What multiple-choice tasks share: prompts as released (facts §4.2), a letter for an answer, circular passes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from owl3.errors import InputError
from owl3.eval.items import LETTERS, Item, Medium, Parsed
from owl3.eval.metrics.choice import option_lines, rotations
from owl3.eval.parsing import parse_letter

LETTER_PLEASE = "Answer with the option’s letter from the given choices directly."  # the apostrophe is the released one
BLOCK = "Question: {question}\nOptions: {options}\n" + LETTER_PLEASE


def parse(item: Item, raw: str) -> Parsed:
    """The letter of one of the options."""
    return parse_letter(raw, item.options)


def make_item(
    name: str,
    prompt: tuple[str | Medium, ...],
    options: Sequence[str],
    answer: int | None,
    *,
    group: str = "",
    category: str = "",
    **meta: Any,
) -> Item:
    """A question whose gold answer is the letter of option `answer` (None: a test server holds it).

    Raises:
        InputError: fewer options than the answer needs, or more than there are letters.
    """
    if len(options) > len(LETTERS) or (answer is not None and not 0 <= answer < len(options)):
        raise InputError(f"question {name}: answer {answer} is not among its {len(options)} options")
    gold = () if answer is None else (LETTERS[answer],)
    return Item(name, prompt, gold, tuple(options), group or name, category, meta)


def circular_items(
    name: str, media: Sequence[Medium], form: str, options: Sequence[str], answer: int | None, **rest: Any
) -> Iterable[Item]:
    """One item per rotation of the options, under ids `NAME-0`, `NAME-1` …; `form` takes `{options}`."""
    for shift, (shown, place) in enumerate(rotations(options, answer or 0)):
        text = form.replace("{options}", option_lines(shown))
        yield make_item(
            f"{name}-{shift}",
            (*media, text),
            shown,
            place if answer is not None else None,
            group=rest.get("group", name),
            category=rest.get("category", ""),
            question=name,
        )


def answer_index(answer: str | int, options: Sequence[str], where: str, *, by_letter: bool = False) -> int:
    """Which option an annotation means: a number from 0 (an int is nothing else), an option's text, a letter.

    Args:
        by_letter: The benchmark names answers by letters: "C" is the third option, though another one may read "C".

    Raises:
        InputError: none of the options.
    """
    if isinstance(answer, int):
        if 0 <= answer < len(options):
            return answer
        raise InputError(f"{where}: the answer {answer} is none of its {len(options)} options, counted from 0")
    text = answer.strip()
    bare = text.strip("().").upper()
    letter = LETTERS.index(bare) if len(bare) == 1 and bare in LETTERS[: len(options)] else None
    if by_letter and letter is not None:
        return letter
    texts = [option.strip() for option in options]
    if text in texts:
        return texts.index(text)
    if letter is not None:
        return letter
    if text.isdecimal() and int(text) < len(options):
        return int(text)
    raise InputError(f"{where}: the answer {text!r} is none of its {len(options)} options")
