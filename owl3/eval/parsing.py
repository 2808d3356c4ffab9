"""From a model's words to an answer: strictly first, then with good will, and always saying which.

The strict rule accepts what the prompt asked for and nothing else. The lenient rule accepts what a reader would. The
share of answers that needed leniency, or could not be read, stands in every summary: a score that leans on its parser
shows it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from owl3.eval.items import LETTERS, Parsed

_TRAILING = " \t\r\n.,;:!?\"'`。，！？；：“”’"
_LETTER_ALONE = re.compile(r"^\(?([A-Z])[\)\.:：、]?$")
_LETTER_FIRST = re.compile(r"^\(?([A-Z])(?:[\)\.:：、]|\s(?!or\b|and\b)|$)")
_SMALL_ALONE = re.compile(r"^\(?([a-z])[\)\.:：、]?$")
# A small letter only where the words end with it: "the answer is a dog" names no option.
_LETTER_NAMED = re.compile(
    r"(?i:answer|option|choice|选项|答案)\s*(?i:is|are|:|：|是|为)?\s*:?\s*\(?([A-Z]\b|[a-z](?=[\)\.:：、，。]|\s*$))"
)
_LETTER_ANYWHERE = re.compile(r"(?<![A-Za-z])([A-Z])(?![A-Za-z'’])")


def clean(text: str) -> str:
    """Without surrounding blanks and closing punctuation, lower-cased: what "red." and " Red" have in common."""
    return text.strip().strip(_TRAILING).lower()


def parse_closed(raw: str, options: Sequence[str]) -> Parsed:
    """Which of a closed set of short answers is meant.

    Strict: the answer is an option, but for case and closing punctuation. Lenient: exactly one option occurs in it as
    whole words.
    """
    said = clean(raw)
    for option in options:
        if said and said == clean(option):
            return Parsed(option, "strict")
    named = [option for option in options if _stands_in(clean(option), said)]
    return Parsed(named[0], "lenient") if len(named) == 1 else Parsed(None, "failed")


def _stands_in(words: str, said: str) -> bool:
    """Whether words occur as whole words. Chinese is written without blanks: there, any place is a border."""
    before = r"(?<!\w)" if words[:1] < "\u2e80" else ""
    after = r"(?!\w)" if words[-1:] < "\u2e80" else ""
    return bool(words) and re.search(f"{before}{re.escape(words)}{after}", said) is not None


def parse_yes_no(raw: str) -> Parsed:
    """Strict: "yes" or "no". Lenient: a first word, or the only one of the two that occurs."""
    said = clean(raw)
    if said in ("yes", "no"):
        return Parsed(said, "strict")
    first = re.match(r"\W*(yes|no)\b", said)
    if first:
        return Parsed(first.group(1), "lenient")
    found = {word for word in ("yes", "no") if re.search(rf"\b{word}\b", said)}
    return Parsed(found.pop(), "lenient") if len(found) == 1 else Parsed(None, "failed")


def parse_letter(raw: str, options: Sequence[str]) -> Parsed:
    """Which option's letter is meant; `options` are the texts shown as A, B, C …

    Strict: the letter alone ("B", "(B)", "B."). Lenient, in this order: a leading letter ("B. red"), the letter alone
    but small, a named one ("the answer is B"), the one option whose text occurs, the only free-standing capital that is
    an option's letter.
    """
    letters = LETTERS[: len(options)]
    text = raw.strip()
    for pattern in (_LETTER_ALONE, _LETTER_FIRST, _SMALL_ALONE, _LETTER_NAMED):
        match = pattern.search(text)
        # "A man …" begins with an article, not with option A: a bare leading A is only taken as the whole answer.
        article = pattern is _LETTER_FIRST and text[:2] in ("A ", "I ")
        if match and not article and match.group(1).upper() in letters:
            return Parsed(match.group(1).upper(), "strict" if pattern is _LETTER_ALONE else "lenient")
    by_text = parse_closed(text, options)
    if by_text.answer is not None:
        return Parsed(letters[list(options).index(by_text.answer)], "lenient")
    free = {letter for letter in _LETTER_ANYWHERE.findall(text) if letter in letters}
    return Parsed(free.pop(), "lenient") if len(free) == 1 else Parsed(None, "failed")


def parse_short(raw: str) -> Parsed:
    """A free answer of a word or a phrase: its first line, without the closing full stop.

    Strict when that is all there was. An empty answer is a failed one.
    """
    lines = [line for line in raw.strip().splitlines() if line.strip()]
    if not lines:
        return Parsed(None, "failed")
    answer = lines[0].strip().rstrip(".。")
    return Parsed(answer, "strict" if len(lines) == 1 else "lenient")
