"""What an importer makes of a row: who says what, with media still as the names the row gives them.

Record(turns=[("user", [MediaName("http://…/1.jpg"), "What is it?"]), ("assistant", ["A boat."])])
"""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from owl3.build.drafts import Refused, clean
from owl3.samples import Role

PLACEHOLDER = re.compile(r"<\|image\|>|<\|video\|>|<image>|<video>|<ImageHere>|<__dj__image>|<__dj__video>")
_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class MediaName:
    """A picture or clip as a row names it: a URL, a relative path, or bytes."""

    name: str
    kind: Literal["image", "video"] = "image"
    data: bytes = b""
    other: str = ""
    """Another name to look under when nothing has the first."""


RecordPart = str | MediaName


@dataclass(frozen=True, slots=True)
class Record:
    """A conversation, or a document when `turns` is empty and `document` is not."""

    turns: list[tuple[Role, list[RecordPart]]] = field(default_factory=list)
    document: list[RecordPart] = field(default_factory=list)
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def media(self) -> list[MediaName]:
        """All media in reading order."""
        parts = [part for _, said in self.turns for part in said] + self.document
        return [part for part in parts if isinstance(part, MediaName)]


def role_of(name: Any) -> Role:
    """The role behind a layout's word for it.

    Raises:
        Refused: `bad_conversation` for a word nobody uses.
    """
    role = _ROLES.get(str(name).strip().lower())
    if role is None:
        raise Refused("bad_conversation", f"nobody is called {name!r}; roles are {', '.join(_ROLES)}")
    return role


def conversation(said: Sequence[tuple[Role, str]], media: Sequence[MediaName], meta: dict[str, Any]) -> Record:
    """Put media where the placeholders of a conversation stand.

    Without any placeholder all media stand before the first question, as the layouts that leave them out mean it. A
    line break between a placeholder and its text is part of the markup (`<image>\\nWhat is it?`) and is left out.

    Raises:
        Refused: `media_mismatch` when placeholders and media differ in number, order or kind; `bad_conversation` when
            turns are empty or in the wrong order.
    """
    check_roles([role for role, _ in said])
    marks = [mark for _, text in said for mark in PLACEHOLDER.findall(text)]
    waiting = list(media)
    if marks and len(marks) != len(waiting):
        raise Refused("media_mismatch", f"{len(marks)} placeholders, {len(waiting)} media")
    turns: list[tuple[Role, list[RecordPart]]] = []
    for role, text in said:
        parts: list[RecordPart] = []
        if waiting and not marks and role == "user":
            parts, waiting = [*waiting], []
        pieces = PLACEHOLDER.split(text)
        for index, (piece, mark) in enumerate(zip(pieces, [*PLACEHOLDER.findall(text), None], strict=True)):
            after = piece.removeprefix("\n") if index > 0 else piece
            parts.append(clean(after.removesuffix("\n") if mark is not None else after))
            if mark is not None:
                medium = waiting.pop(0)
                if ("video" in mark) != (medium.kind == "video"):
                    raise Refused("media_mismatch", f"{mark} stands where {medium.name!r} ({medium.kind}) comes next")
                parts.append(medium)
        turns.append((role, _stripped(parts)))
    if any(not parts for _, parts in turns):
        raise Refused("bad_conversation", "a turn is empty")
    return Record(turns=turns, meta=meta)


def check_roles(roles: Sequence[Role]) -> None:
    """A conversation: an optional system turn, then user and assistant in turn, ending with an answer.

    Raises:
        Refused: `bad_conversation`.
    """
    talk = list(roles[1:] if roles and roles[0] == "system" else roles)
    if not talk:
        raise Refused("bad_conversation", "nobody says anything")
    if talk[0] != "user":
        raise Refused("bad_conversation", f"begins with the {talk[0]}")
    for index, role in enumerate(talk):
        if role != ("user", "assistant")[index % 2]:
            raise Refused("bad_conversation", f"turn {index} is the {role}'s again")
    if len(talk) % 2:
        raise Refused("bad_conversation", "the last question has no answer")


def _stripped(parts: list[RecordPart]) -> list[RecordPart]:
    """Without blanks at the turn's two ends, and without empty texts."""
    if parts and isinstance(parts[0], str):
        parts[0] = parts[0].lstrip()
    if parts and isinstance(parts[-1], str):
        parts[-1] = parts[-1].rstrip()
    return [part for part in parts if part != ""]


def media_names(value: Any, kind: Literal["image", "video"] = "image") -> list[MediaName]:
    """Media of a row's field: nothing, one name, a list of names, or dictionaries with bytes or a path. A name may be
    a data URI (`data:image/jpeg;base64,…`), as OpenAI's messages have it.

    Raises:
        Refused: `wrong_type` for anything else.
    """
    if value is None or value == "":
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [_media_name(entry, kind) for entry in values]


def _media_name(entry: Any, kind: Literal["image", "video"]) -> MediaName:
    if isinstance(entry, str) and entry:
        return _inside(entry, kind) if entry.startswith("data:") else MediaName(entry, kind)
    if isinstance(entry, bytes) and entry:
        return MediaName("bytes", kind, entry)
    if isinstance(entry, dict):
        data = entry.get("bytes")
        if isinstance(data, bytes) and data:
            return MediaName(str(entry.get("path") or "bytes"), kind, data)
        path = entry.get("path") or entry.get("url") or entry.get("image")
        if isinstance(path, str) and path:
            return _media_name(path, kind)
    raise Refused("wrong_type", f"{kind}: expected a name, found {type(entry).__name__}")


def _inside(uri: str, kind: Literal["image", "video"]) -> MediaName:
    """A medium that a data URI spells out."""
    head, _, text = uri.partition(",")
    try:
        data = base64.b64decode(text, validate=True) if head.endswith(";base64") else b""
    except ValueError:
        data = b""
    if not data:
        raise Refused("wrong_type", f"{kind}: {head[:40]!r} is no data URI in base64")
    return MediaName(head, kind, data)


def text_of(row: dict[str, Any], key: str) -> str:
    """A text field.

    Raises:
        Refused: `wrong_type` when it is missing or no text.
    """
    value = row.get(key)
    if not isinstance(value, str):
        raise Refused("wrong_type", f"{key}: expected text, found {type(value).__name__}")
    return value


def list_of(row: dict[str, Any], key: str) -> list[Any]:
    """A list field.

    Raises:
        Refused: `wrong_type` when it is missing or no list.
    """
    value = row.get(key)
    if not isinstance(value, list):
        raise Refused("wrong_type", f"{key}: expected a list, found {type(value).__name__}")
    return value


def dict_of(value: Any, what: str) -> dict[str, Any]:
    """An entry that must be a mapping.

    Raises:
        Refused: `wrong_type` when it is not.
    """
    if not isinstance(value, dict):
        raise Refused("wrong_type", f"{what}: expected a mapping, found {type(value).__name__}")
    return value
