"""What a builder makes: a draft of a sample, whose media are still places in other files, or a refusal.

script = Script()
script.turn("user", "Image 1: ", picture, "What is this?")
script.turn("assistant", "A boat.")
Draft(kind="instruct", script=script, parents=(picture.parent,), source="scenes", licence="CC0-1.0")
"""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Any

from owl3.samples import PLACEHOLDERS, Kind, Role, Segment, Turn
from owl3.tokens import SPECIAL_TOKENS

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_LINE_END = re.compile(r"\r+\n")
_CJK = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a medium lie, and what its parent's table says about them.

    A whole file has offset 0 and -1 bytes. Width and height 0 and an empty sha256 mean: not known before reading.
    """

    path: str
    """Relative to the workspace, or absolute for files outside of it."""
    offset: int
    num_bytes: int
    sha256: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class Medium:
    """A picture or a frame of a draft."""

    place: Place | None = None
    data: bytes = b""
    """New bytes (video frames), instead of a place."""
    time_s: float | None = None
    row: int = -1
    """The drawn parent it came from; lets a builder do without it when it turns out to be gone."""
    width: int = 0
    height: int = 0


Part = str | Medium


class Script:
    """Collects turns in reading order and numbers their media."""

    def __init__(self) -> None:
        self.segments: list[Segment] = []
        self.turns: list[Turn] = []
        self.media: list[Medium] = []

    def turn(self, role: Role, *parts: Part) -> None:
        """Add what one speaker says; neighbouring texts become one segment, empty ones none."""
        start = len(self.segments)
        self._append(parts)
        self.turns.append(Turn(role=role, start=start, end=len(self.segments)))

    def document(self, *parts: Part) -> None:
        """Add text and media that nobody says: all of it is trained."""
        self._append(parts)

    def _append(self, parts: tuple[Part, ...]) -> None:
        text = ""
        for part in parts:
            if isinstance(part, str):
                text += part
                continue
            self._flush(text)
            text = ""
            number = len(self.media)
            self.media.append(part)
            if part.time_s is None:
                self.segments.append(Segment(image=number))
            else:
                self.segments.append(Segment(frame=number, time_s=part.time_s))
        self._flush(text)

    def _flush(self, text: str) -> None:
        if text:
            self.segments.append(Segment(text=text))


@dataclass(frozen=True, slots=True)
class Draft:
    """A sample to be: everything but its bytes, its id and its cost."""

    kind: Kind
    script: Script
    parents: tuple[str, ...]
    source: str
    licence: str
    extra: str = ""
    """What tells it apart from other samples with these parents (question, target, row digest …)."""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Refusal:
    """An attempt that becomes no sample, and why."""

    reason: str
    parents: tuple[str, ...] = ()
    extra: str = ""
    """Tells it apart from other refusals with these parents."""
    source: str = ""
    detail: str = ""


class Refused(Exception):
    """Raised inside a builder where the attempt turns out to be no sample."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def clean(text: str) -> str:
    """Make text fit for a sample: NFC, no control characters, no placeholder or special token of its own. What is clean
    stays as it is."""
    text = _CONTROL.sub("", text.encode("utf-8", "ignore").decode("utf-8"))
    text = unicodedata.normalize("NFC", _LINE_END.sub("\n", text))
    for mark in (*PLACEHOLDERS, *SPECIAL_TOKENS):
        text = text.replace(mark, " ")
    return text


def clean_text(text: str) -> str:
    """As `clean`, without blanks at the ends."""
    return clean(text).strip()


def language_of(text: str) -> str:
    """`zh` where at least a fifth of the characters are Chinese, else `en`: enough to choose a template."""
    return "zh" if text and len(_CJK.findall(text)) * 5 >= len(text) else "en"


def joined(values: list[str]) -> str:
    """The different values in order of appearance: the source or licence of a sample with several parents."""
    return " | ".join(dict.fromkeys(value or "unknown" for value in values))
