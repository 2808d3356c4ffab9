"""One sample type for a caption, a web page, a video and a ten-image question, and how samples are named.

    {"id": "9f…", "kind": "image_text",
     "segments": [{"image": 0}, {"text": "a red circle"}],
     "turns": [{"role": "user", "start": 0, "end": 1}, {"role": "assistant", "start": 1, "end": 2}],
     "parents": ["3a…"], "builder": "caption", "builder_version": "1", "source": "scenes", "licence": "CC0-1.0",
     "seed": 0, "meta": {}}

Text and media stand in reading order. Media are numbered 0, 1, 2 … in that order and are the members KEY.0.jpg,
KEY.1.jpg … beside KEY.json.
"""

import hashlib
import re
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from pydantic import Field, model_validator

from owl3.config import Config, plain, plain_json

Kind = Literal[
    "image_text",
    "interleaved",
    "selective",
    "video",
    "long_image",
    "instruct",
    "distractor",
    "text_reading",
    "text",
]
Role = Literal["system", "user", "assistant"]

PLACEHOLDERS = ("<|image|>", "<|video|>", "<image>", "<video>")
"""Spellings that stand for a medium. Text of a sample may hold none of them: a reference is a segment."""

SAMPLE_ID_PATTERN = re.compile(r"[0-9a-f]{32}")


class Segment(Config):
    """A piece of a sample: text, or a reference to one of its media (exactly one of the three)."""

    text: str | None = None
    image: int | None = Field(default=None, ge=0)
    frame: int | None = Field(default=None, ge=0)
    time_s: float | None = None
    """When a frame was shown, in seconds from the start of its clip; only for `frame`."""

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if sum(part is not None for part in (self.text, self.image, self.frame)) != 1:
            raise ValueError("a segment is exactly one of text, image, frame")
        if (self.frame is None) != (self.time_s is None):
            raise ValueError("time_s belongs to a frame, and a frame must have it")
        return self

    @property
    def medium(self) -> int | None:
        """The number of the medium referred to, or None for text."""
        return self.image if self.image is not None else self.frame


class Turn(Config):
    """Who says which segments: a half-open range `[start, end)` over the sample's segments."""

    role: Role
    start: int = Field(ge=0)
    end: int = Field(ge=0)


class Sample(Config):
    """One training example; see the head of this file.

    `turns` cover all segments in order; without turns the sample is a document, of which all text is trained.
    """

    id: str = Field(pattern=f"^{SAMPLE_ID_PATTERN.pattern}$")
    kind: Kind
    segments: tuple[Segment, ...] = Field(min_length=1)
    turns: tuple[Turn, ...] = ()
    parents: tuple[str, ...] = ()
    builder: str = ""
    builder_version: str = ""
    source: str
    licence: str
    seed: int = 0
    meta: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_in_reading_order(self) -> Self:
        media = [segment.medium for segment in self.segments if segment.medium is not None]
        if media != list(range(len(media))):
            raise ValueError(f"media must be numbered 0, 1, 2 … in reading order, found {media}")
        for segment in self.segments:
            found = next((mark for mark in PLACEHOLDERS if segment.text and mark in segment.text), None)
            if found:
                raise ValueError(f"text holds the placeholder {found}; refer to media by segments")
        if self.turns:
            edges = [0, *(turn.end for turn in self.turns)]
            if [turn.start for turn in self.turns] != edges[:-1] or edges[-1] != len(self.segments):
                raise ValueError("turns must cover all segments in order, without gaps or overlap")
        return self

    @property
    def num_media(self) -> int:
        """How many pictures or frames it holds."""
        return sum(segment.medium is not None for segment in self.segments)

    def to_json(self) -> bytes:
        """The bytes of KEY.json: canonical, so the same sample is the same bytes."""
        data = self.__dict__.copy()  # the fields as they are: model_dump takes five times as long
        data["segments"] = [
            {name: value for name, value in segment.__dict__.items() if value is not None} for segment in self.segments
        ]
        data["turns"] = [turn.__dict__ for turn in self.turns]
        data["meta"] = plain(self.meta)
        return plain_json(data)


def short_hash(*parts: str) -> str:
    """128 bits of sha256 over the parts, with their borders, as 32 hex digits."""
    framed = b""
    for part in parts:
        piece = part.encode("utf-8", "surrogatepass")
        framed += len(piece).to_bytes(8, "big") + piece
    return hashlib.sha256(framed).hexdigest()[:32]


_LABEL = r"[a-z0-9_-]{1,63}"
_CANONICAL_URL = re.compile(
    rf"https?://{_LABEL}(?:\.{_LABEL})*/[A-Za-z0-9/%:@!$&'()*+,;=~._-]*(?:\?[A-Za-z0-9/%:@!$&'()*+,;=~._?-]+)?"
)
"""What is spelt as `canonical_url` spells it: most URLs, told in a tenth of the time that taking them apart needs."""


def canonical_url(url: str) -> str:
    """Spell a URL one way: lower-case scheme and host, no default port, no fragment, escapes for what needs them.

    The path's case and the query's order are kept: servers may tell them apart.
    """
    if _CANONICAL_URL.fullmatch(url):
        return url
    parts = urlsplit(url.strip())
    scheme = parts.scheme.lower()
    host = (parts.hostname or "").encode("idna").decode("ascii") if parts.hostname else ""
    if ":" in host:
        host = f"[{host}]"
    default = {"http": 80, "https": 443}.get(scheme)
    netloc = host if parts.port in (None, default) else f"{host}:{parts.port}"
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
    return urlunsplit((scheme, netloc, path, query, ""))


def url_id(url: str) -> str:
    """Name a URL by its canonical spelling, so that it can be told again where it may not be written down.

    Raises:
        ValueError: when `url` can't be parsed.
    """
    return canonical_id(canonical_url(url))


def canonical_id(canonical: str) -> str:
    """`url_id` of a URL that is spelt canonically already; spelling takes most of the time."""
    return short_hash(canonical)


REDACTIONS = re.compile(r"\[(?:url|email|phone)\]")
"""What stands in a caption where curation took something out; the sample's id is the hash of the caption as it came."""


def is_redacted(caption: str | None) -> bool:
    """Whether anything was taken out of a caption."""
    return caption is not None and REDACTIONS.search(caption) is not None


def url_sample_id(url: str, caption: str) -> str:
    """Name a downloaded sample by what it is, never by where it stood: hash of (canonical URL, caption).

    Raises:
        ValueError: when `url` can't be parsed.
    """
    return short_hash("url", canonical_url(url), caption)


def built_sample_id(builder: str, version: str, seed: int, parents: tuple[str, ...], extra: str = "") -> str:
    """Name a built sample: hash of (builder, its version, its seed, ordered parent ids, what else tells it apart)."""
    return short_hash("built", builder, version, str(seed), *parents, extra)
