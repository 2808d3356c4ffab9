"""From a model's words to an answer: strictly first, then with good will, and always saying which.

The strict rule accepts what the prompt asked for and nothing else. The lenient rule accepts what a reader would. The
share of answers that needed leniency, or could not be read, stands in every summary: a score that leans on its parser
shows it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from owl3.eval.items import LETTERS, Parsed

_TRAILING = " \t\r\n.,;:!?\"'`。，！？；：“”’"
_LETTER_ALONE = re.compile(r"^\(?([A-Z])[\)\.:：、]?$")
_LETTER_FIRST = re.compile(r"^\(?([A-Z])(?:[\)\.:：、]|\s(?!or\b|and\b)|$)")
_SMALL_FIRST = re.compile(r"^\(?([a-z])(?:[\)\.:：、]?$|[\)\.:：、]\s)")
_OR_ANOTHER = r"(?!\s*(?:or|and|/|,|、|或|和)\s*\(?[A-Za-z]\b)"
# A small letter only where the words end with it: "the answer is a dog" names no option.
_LETTER_NAMED = re.compile(
    r"(?i:answer|option|choice|choose|letter|选项|答案)\s*(?i:is|are|:|：|是|为)?\s*:?\s*"
    r"\(?([A-Z]\b|[a-z](?=[\)\.:：、，。]|\s*$))" + _OR_ANOTHER
)
_LETTER_LISTED = re.compile(r"(?<![A-Za-z])([A-Z])[\)\.:：、]")
_LETTER_ANYWHERE = re.compile(r"(?<![A-Za-z0-9])([A-Z])(?![A-Za-z0-9'’])")
_ARTICLE = re.compile(r"^(?:an?|the)\s+(?=\S)", re.IGNORECASE)
_UNDECIDED = re.compile(r"\byes\s*(?:or|/)\s*no\b")


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
    """Strict: "yes" or "no". Lenient: a first word, or the only one of the two that occurs; not "yes or no"."""
    said = clean(raw)
    if said in ("yes", "no"):
        return Parsed(said, "strict")
    if _UNDECIDED.search(said):  # the question said again
        return Parsed(None, "failed")
    first = re.match(r"\W*(yes|no)\b", said)
    if first:
        return Parsed(first.group(1), "lenient")
    found = {word for word in ("yes", "no") if re.search(rf"\b{word}\b", said)}
    return Parsed(found.pop(), "lenient") if len(found) == 1 else Parsed(None, "failed")


def parse_letter(raw: str, options: Sequence[str]) -> Parsed:
    """Which option's letter is meant; `options` are the texts shown as A, B, C …

    Strict: the letter alone ("B", "(B)", "B."). Lenient, in this order: a leading letter ("B. red", "b) red"), unless
    others are listed after it (an answer that repeats the options chooses none); the last one that is named ("the
    answer is B"), unless it is one of two; the one option whose text occurs, but for its article; the only
    free-standing capital that is an option's letter. Wide letters ("Ｂ") and quotes around an answer are read over.
    """
    letters = LETTERS[: len(options)]
    text = unicodedata.normalize("NFKC", raw).strip()
    alone = _LETTER_ALONE.match(text)
    if alone and alone[1] in letters:
        return Parsed(alone[1], "strict" if raw.isascii() else "lenient")
    text = text.strip("\"'“”‘’` ")
    for found in (_leading(text, letters), _named(text, letters)):
        if found:
            return Parsed(found, "lenient")
    shown = [unicodedata.normalize("NFKC", option) for option in options]
    for texts in (shown, [_ARTICLE.sub("", option.strip()) for option in shown]):
        said = parse_closed(text, texts).answer
        if said is not None and texts.count(said) == 1:
            return Parsed(letters[texts.index(said)], "lenient")
    free = {letter for letter in _LETTER_ANYWHERE.findall(text) if letter in letters}
    return Parsed(free.pop(), "lenient") if len(free) == 1 else Parsed(None, "failed")


def _leading(text: str, letters: str) -> str | None:
    """The letter that an answer begins with, where it is no article and no list of all of them."""
    small = _SMALL_FIRST.match(text)
    if small and small[1].upper() in letters:
        return small[1].upper()
    first = _LETTER_FIRST.match(text)
    # "A man …" begins with an article, not with option A: a bare leading A is only taken as the whole answer.
    if first is None or first[1] not in letters or text[:2] in ("A ", "I "):
        return None
    pattern = _LETTER_ANYWHERE if text[first.end(1) :][:1].isspace() else _LETTER_LISTED
    others = {letter for letter in pattern.findall(text) if letter in letters} - {first[1], "A", "I"}
    listed = set(_LETTER_LISTED.findall(text)) & set(letters)
    return None if others or len(listed) > 1 else first[1]


def _named(text: str, letters: str) -> str | None:
    found = [letter.upper() for letter in _LETTER_NAMED.findall(text) if letter.upper() in letters]
    return found[-1] if found else None


def parse_short(raw: str) -> Parsed:
    """A free answer of a word or a phrase: its first line, without the closing full stop.

    Strict when that is all there was. An empty answer is a failed one.
    """
    lines = [line for line in raw.strip().splitlines() if line.strip()]
    if not lines:
        return Parsed(None, "failed")
    answer = lines[0].strip().rstrip(".。")
    return Parsed(answer, "strict" if len(lines) == 1 else "lenient")
