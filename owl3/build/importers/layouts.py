"""The layouts that `instruct`, `video` and `text` read, by name."""

from collections.abc import Callable
from typing import Any

from owl3.build.drafts import Refused
from owl3.build.importers.chat import llava, mantis
from owl3.build.importers.messages import messages
from owl3.build.importers.plain import plain_text
from owl3.build.importers.record import Record

Importer = Callable[[dict[str, Any]], Record]

LAYOUTS: dict[str, Importer] = {
    "llava": llava,
    "mantis": mantis,
    "messages": messages,
    "plain": plain_text,
}
"""Layout → importer. `auto` looks at each row."""


def detect(row: dict[str, Any]) -> str:
    """Which layout a row is in.

    Raises:
        Refused: `wrong_type` when it is none that we know.
    """
    if "messages" in row:
        return "messages"
    if "conversations" in row:
        return "llava"
    if "conversation" in row:
        return "mantis"
    if isinstance(row.get("text"), str):
        return "plain"
    raise Refused("wrong_type", f"keys {', '.join(sorted(map(str, row)))[:120]} belong to no known layout")


def import_row(row: Any, layout: str) -> Record:
    """Read one row in a layout, or in the one it looks like.

    Raises:
        Refused: with the reason, when it is no usable row of that layout.
    """
    if not isinstance(row, dict):
        raise Refused("wrong_type", f"a row is a mapping, this is a {type(row).__name__}")
    return LAYOUTS[detect(row) if layout == "auto" else layout](row)
