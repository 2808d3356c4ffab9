"""Keep, or name the reason: every decision about one row is a pure function of what is known about it.

    drop_reason(facts) -> str | None

Decisions about the row alone (caption, licence, the corpus's own scores) come before the fetch, so nothing is fetched
to be thrown away; those about the picture come after it. What needs a view of all rows is in `dedup.py`.
"""

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from owl3.config import Config
from owl3.curate.captions import is_boilerplate, redact, repetition
from owl3.ledger import check_reason
from owl3.media import ImageFacts
from owl3.video import VideoFacts

Check = Callable[["Row"], str | None]
MediaCheck = Callable[[ImageFacts], str | None]
ClipCheck = Callable[[VideoFacts], str | None]


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a URL table."""

    url: str
    domain: str
    caption: str
    licence: str
    columns: Mapping[str, Any]  # the corpus's own columns, without their src_ prefix
    language: str | None = None


class ImageRules(Config):
    """Which pictures are worth keeping. Sides are those of the picture as fetched, upright."""

    min_side_px: int = Field(default=0, ge=0)
    max_side_px: int | None = Field(default=None, gt=0)
    max_aspect_ratio: float | None = Field(default=None, ge=1)
    animated: Literal["first_frame", "drop"] = "first_frame"
    min_grey_std: float = Field(default=2.0, ge=0)
    """Spread of grey values (0..127) under which a picture is blank; one colour has 0."""
    min_sharpness: float = Field(default=0.0, ge=0)
    """Variance of the Laplacian at 128 to 256 px; 0 checks nothing."""


class VideoRules(Config):
    """Which clips are worth keeping. Lengths are those of the part between a row's start and end, where it has them."""

    min_side_px: int = Field(default=0, ge=0)
    min_duration_s: float = Field(default=0.0, ge=0)
    max_duration_s: float | None = Field(default=None, gt=0)
    min_frames: int = Field(default=2, ge=1)


class CaptionRules(Config):
    """Which captions are worth keeping, and what is taken out of them. Lengths are in characters and words."""

    min_chars: int = Field(default=1, ge=0)
    max_chars: int | None = Field(default=None, gt=0)
    min_words: int = Field(default=0, ge=0)
    max_repetition: float | None = Field(default=None, gt=0, le=1)
    """Share of the caption that its most frequent character (or word, of five or more) may take."""
    max_repeats: int | None = Field(default=None, ge=1)
    """Rows of the corpus that may have one and the same caption; the smallest ids stay."""
    boilerplate: Literal["keep", "drop"] = "drop"
    """File names, "image not found" and their like."""
    urls: Literal["keep", "redact", "drop"] = "redact"
    personal_data: Literal["keep", "redact", "drop"] = "redact"
    """E-mail addresses and phone numbers. Redacting changes the caption, never the sample's id."""
    languages: tuple[str, ...] | None = None
    """ISO 639-1 codes to keep; captions whose language can't be told are dropped, too."""
    language_candidates: tuple[str, ...] = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "zh")
    """What the detector chooses from, beside `languages`."""
    trust_column: bool = False
    """Take the corpus's own language column where it says something."""


class ScoreRule(Config):
    """A threshold on one of the corpus's own columns."""

    column: str
    min: float | None = None
    max: float | None = None
    reason: str
    missing: Literal["keep", "drop"] = "keep"
    """What to do with a row whose value is missing or no number."""

    @model_validator(mode="after")
    def _is_a_rule(self) -> "ScoreRule":
        if self.min is None and self.max is None:
            raise ValueError(f"score rule on {self.column!r} needs min or max")
        check_reason_word(self.reason)
        return self


class WordRule(Config):
    """Words that one of the corpus's own columns must hold, or must not: a word or a list of them, as `categories`."""

    column: str
    any_of: tuple[str, ...] = ()
    """Keep only rows that hold one of these; a row whose value is missing holds none."""
    none_of: tuple[str, ...] = ()
    """Drop rows that hold one of these."""
    reason: str = "content_not_allowed"

    @model_validator(mode="after")
    def _is_a_rule(self) -> "WordRule":
        if not self.any_of and not self.none_of:
            raise ValueError(f"word rule on {self.column!r} needs any_of or none_of")
        check_reason_word(self.reason)
        return self


class RowRules(Config):
    """What is decided before anything is fetched."""

    caption: CaptionRules = CaptionRules()
    licences: tuple[str, ...] | None = None
    """Licences to keep; None keeps all."""
    scores: tuple[ScoreRule, ...] = ()
    words: tuple[WordRule, ...] = Field(default=(), exclude_if=operator.not_)


def check_reason_word(word: str) -> str:
    """Return a reason from a recipe if it is on the ledger's list."""
    try:
        return check_reason(word)
    except AssertionError as error:
        raise ValueError(str(error)) from error


def first_reason(checks: Sequence[Callable[[Any], str | None]], facts: Any) -> str | None:
    """Ask each check in turn; the first that names a reason decides."""
    for check in checks:
        reason = check(facts)
        if reason is not None:
            return check_reason(reason)
    return None


def row_checks(rules: RowRules) -> list[Check]:
    """The checks on rows that a recipe asks for, in the order of their cost."""
    checks: list[Check] = []
    if rules.licences is not None:
        checks.append(licence_in(rules.licences))
    checks += [score_within(rule) for rule in rules.scores]
    checks += [words_within(rule) for rule in rules.words]
    checks += caption_checks(rules.caption)
    return checks


def caption_checks(rules: CaptionRules) -> list[Check]:
    """The checks on captions, cheap ones first. Languages have been told before: they are a column of the table."""
    checks = [caption_length(rules)]
    if rules.boilerplate == "drop":
        checks.append(lambda row: "caption_boilerplate" if is_boilerplate(row.caption) else None)
    if rules.max_repetition is not None:
        share = rules.max_repetition
        checks.append(lambda row: "caption_repetitive" if repetition(row.caption) > share else None)
    if "drop" in (rules.urls, rules.personal_data):
        checks.append(caption_without(urls=rules.urls == "drop", personal=rules.personal_data == "drop"))
    if rules.languages is not None:
        wanted = rules.languages
        checks.append(lambda row: None if row.language in wanted else "caption_language")
    return checks


def image_checks(rules: ImageRules) -> list[MediaCheck]:
    """The checks on decoded pictures that a recipe asks for."""
    return [image_size(rules), image_shape(rules), image_content(rules)]


def licence_in(allowed: Sequence[str]) -> Check:
    """Drop rows whose licence is not one of `allowed`, spelt alike but for case."""
    wanted = {licence.casefold() for licence in allowed}

    def check(row: Row) -> str | None:
        return None if row.licence.casefold() in wanted else "licence_not_allowed"

    return check


def score_within(rule: ScoreRule) -> Check:
    """Drop rows whose score lies outside a rule's bounds."""

    def check(row: Row) -> str | None:
        value = row.columns.get(rule.column)
        try:
            score = float(value) if value is not None else None
        except (TypeError, ValueError):
            score = None
        if score is None or math.isnan(score):
            return rule.reason if rule.missing == "drop" else None
        low = rule.min is not None and score < rule.min
        high = rule.max is not None and score > rule.max
        return rule.reason if low or high else None

    return check


def words_within(rule: WordRule) -> Check:
    """Drop rows without any of the words they must hold, or with one that they must not; spelt alike but for case."""
    wanted, unwanted = ({word.casefold() for word in words} for words in (rule.any_of, rule.none_of))

    def check(row: Row) -> str | None:
        value = row.columns.get(rule.column)
        held = {str(word).casefold() for word in (value if isinstance(value, list) else [value]) if word is not None}
        return rule.reason if (wanted and not wanted & held) or unwanted & held else None

    return check


def caption_length(rules: CaptionRules) -> Check:
    """Drop captions that are too short or too long."""

    def check(row: Row) -> str | None:
        text = row.caption.strip()
        if len(text) < rules.min_chars or len(text.split()) < rules.min_words:
            return "caption_too_short"
        if rules.max_chars is not None and len(text) > rules.max_chars:
            return "caption_too_long"
        return None

    return check


def caption_without(urls: bool, personal: bool) -> Check:
    """Drop captions that hold a URL (`caption_boilerplate`) or an e-mail address or phone number."""

    def check(row: Row) -> str | None:
        if personal and redact(row.caption, urls=False, personal=True) != row.caption:
            return "personal_data"
        return "caption_boilerplate" if urls and redact(row.caption, urls=True, personal=False) != row.caption else None

    return check


def image_size(rules: ImageRules) -> MediaCheck:
    """Drop pictures with a side under the minimum or over the maximum."""

    def check(facts: ImageFacts) -> str | None:
        if min(facts.width, facts.height) < rules.min_side_px:
            return "image_too_small"
        if rules.max_side_px is not None and max(facts.width, facts.height) > rules.max_side_px:
            return "image_too_large"
        return None

    return check


def image_shape(rules: ImageRules) -> MediaCheck:
    """Drop pictures that are too long and thin."""

    def check(facts: ImageFacts) -> str | None:
        ratio = max(facts.width, facts.height) / max(1, min(facts.width, facts.height))
        return "aspect_ratio" if rules.max_aspect_ratio is not None and ratio > rules.max_aspect_ratio else None

    return check


def image_content(rules: ImageRules) -> MediaCheck:
    """Drop animations if the recipe says so, blank pictures and blurred ones."""

    def check(facts: ImageFacts) -> str | None:
        if facts.frames > 1 and rules.animated == "drop":
            return "animated_image"
        if facts.grey_std < rules.min_grey_std:
            return "blank_image"
        return "blurred_image" if facts.sharpness < rules.min_sharpness else None

    return check


def clip_checks(rules: VideoRules) -> list[ClipCheck]:
    """The checks on clips that a recipe asks for."""

    def size(facts: VideoFacts) -> str | None:
        return "image_too_small" if min(facts.width, facts.height) < rules.min_side_px else None

    def length(facts: VideoFacts) -> str | None:
        if facts.duration_s < rules.min_duration_s or facts.frames < rules.min_frames:
            return "clip_too_short"
        too_long = rules.max_duration_s is not None and facts.duration_s > rules.max_duration_s
        return "clip_too_long" if too_long else None

    return [size, length]
