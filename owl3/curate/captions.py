"""What captions say, and whether they should be trained on: boilerplate, language, personal data.

Language is told by lingua; it loads its models on first use, so a recipe that names no languages pays nothing.
A caption is a stranger's text of up to 100,000 characters: patterns take what they match for good (`*+`) and begin
where a word begins, so that none goes over it more than a few times.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa

_FILE_NAME = re.compile(r"(?i)^[\w\-. %()+]{1,80}\.(jpe?g|png|gif|webp|bmp|tiff?|svg|avif|heic|mp4|mov|avi)$")
_CAMERA_NAME = re.compile(
    r"(?i)^(img|image|dsc[nf]?|dscf|pict?|photo|p10|mvi|vid|gopr|screenshot)[\s_\-]*+\(?\d*+\)?[\s_\-\d]*+$"
)
_BOILERPLATE = re.compile(
    r"(?i)^\W*+("
    r"(no|missing)\s+(image|photo|picture|preview|thumbnail)(\s+(available|found|yet))?"
    r"|(image|photo|picture|page)\s+(not|no longer|is not|un)\s*(found|available)"
    r"|(image|photo|picture)\s+coming\s+soon|coming\s+soon"
    r"|click\s+(here\s+)?to\s+(enlarge|view|see|zoom|open).*+|click\s+here"
    r"|(image|photo|picture|thumbnail|placeholder|logo|avatar|banner|icon|default|untitled|loading)(\W*+(image|photo|picture))?"
    r"|404(\s+not\s+found)?|access\s+denied|null|none|undefined|n/?a|lorem ipsum.*+"
    r"|图片加载中|暂无图片|图片不存在|点击查看大图|点击放大"
    r")\W*+$"
)
_EMAIL = re.compile(
    r"(?i)(?<![a-z0-9._%+\-])([.%+\-]*+)[a-z0-9_][a-z0-9._%+\-]*+@[a-z0-9](?:[a-z0-9\-]*+\.)+[a-z]{2,}(?![a-z0-9_])"
)
_PHONE = re.compile(
    r"(?<![A-Za-z0-9_.])(?:\+\d{1,3}[\s.\-]?)?(?:\(\d{2,4}\)[\s.\-]?)?\d{2,4}(?:[\s.\-]\d{2,4}){1,4}(?![A-Za-z0-9_.])"
)
_URL = re.compile(r"(?i)(?<![a-z0-9_])(?:https?://|www\.)\S+")
"""Their borders are ASCII's: Chinese characters stand beside an address without a space, and are letters to `\\b`."""
_PHONE_DIGITS = range(9, 16)
_FILE_NAME_WORDS = 3  # more words under a file's extension are a caption after all


def is_boilerplate(caption: str) -> bool:
    """Is the whole caption a file name, a camera's numbering, or a phrase that pages put in place of a picture?"""
    text = caption.strip()
    is_file_name = len(text.split()) <= _FILE_NAME_WORDS and _FILE_NAME.match(text)
    return bool(is_file_name or _CAMERA_NAME.match(text) or _BOILERPLATE.match(text))


def repetition(caption: str) -> float:
    """Share of the caption taken by its most frequent character, or word among five or more; 0..1."""
    letters = re.sub(r"\s", "", caption.casefold())
    words = caption.casefold().split()
    letter_share = max(Counter(letters).values(), default=0) / len(letters) if len(letters) >= 5 else 0.0
    word_share = max(Counter(words).values(), default=0) / len(words) if len(words) >= 5 else 0.0
    return max(letter_share, word_share)


def redact(caption: str, urls: bool, personal: bool) -> str:
    """Replace URLs by [url], e-mail addresses by [email] and phone numbers by [phone]."""
    text = caption
    if personal:
        text = _EMAIL.sub(r"\1[email]", text)
    if urls:
        text = _URL.sub("[url]", text)
    return _PHONE.sub(_phone, text) if personal else text


def _phone(match: re.Match[str]) -> str:
    """A phone number has 9 to 15 digits and +, brackets, dashes or dots: mere spaces make a list of numbers."""
    text = match.group()
    digits = sum(character.isdecimal() for character in text)
    is_date = re.fullmatch(r"\d{1,4}[.\-]\d{1,2}[.\-]\d{1,4}", text)
    is_phone = digits in _PHONE_DIGITS and any(mark in text for mark in "+(-.") and not is_date
    return "[phone]" if is_phone else text


def language_detector(candidates: Sequence[str]) -> Callable[[str], str | None]:
    """Return `detect(text)`: the ISO 639-1 code of a text's language among `candidates`, None when it can't be told.

    Raises:
        ValueError: for a code that lingua does not know.
    """
    detector = _detector(tuple(sorted(set(candidates))))

    def detect(text: str) -> str | None:
        found = detector.detect_language_of(text)
        return None if found is None else str(found.iso_code_639_1.name).lower()

    return detect


@lru_cache(maxsize=2)
def _detector(codes: tuple[str, ...]) -> Any:
    from lingua import IsoCode639_1, LanguageDetectorBuilder

    known = {name.lower(): getattr(IsoCode639_1, name) for name in dir(IsoCode639_1) if name.isupper()}
    unknown = [code for code in codes if code not in known]
    if unknown:
        raise ValueError(f"unknown languages {', '.join(unknown)}; codes are ISO 639-1, as en, zh, de")
    builder = LanguageDetectorBuilder.from_iso_codes_639_1(*(known[code] for code in codes))
    return builder.with_low_accuracy_mode().build()


def tell_languages(table: pa.Table, candidates: Sequence[str], trust_column: bool) -> pa.Table:
    """Fill in a URL table's language column; with `trust_column` only where it says nothing."""
    detect = language_detector(candidates)
    captions, given = (table.column(name).to_pylist() for name in ("caption", "language"))
    told = [
        known if known and trust_column else detect(text or "") for text, known in zip(captions, given, strict=True)
    ]
    return _replaced(table, "language", told)


def redact_captions(table: pa.Table, urls: bool, personal: bool) -> pa.Table:
    """Take URLs and personal data out of a URL table's captions; ids stay those of the captions as they came.

    Rows that a takedown cleared have none.
    """
    if not urls and not personal:
        return table
    captions = table.column("caption").to_pylist()
    return _replaced(table, "caption", [text and redact(text, urls, personal) for text in captions])


def _replaced(table: pa.Table, name: str, values: Sequence[str | None]) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
