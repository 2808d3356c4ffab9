"""The layouts that `instruct`, `video` and `text` read, by name."""

from collections.abc import Callable
from typing import Any

from owl3.build.drafts import Refused
from owl3.build.importers.chat import llava, mantis
from owl3.build.importers.documents import mint, mmc4, obelics
from owl3.build.importers.messages import messages
from owl3.build.importers.plain import plain_text
from owl3.build.importers.questions import cauldron, video_instruct
from owl3.build.importers.record import Record

Importer = Callable[[dict[str, Any]], Record]

LAYOUTS: dict[str, Importer] = {
    "llava": llava,  # also LLaVA-NeXT-Interleave (M4), MMDU, ALLaVA, ShareGPTVideo-QA
    "mantis": mantis,  # also VideoChat as Mantis ships it
    "messages": messages,  # ms-swift, LLaMA-Factory, OpenAI's content lists
    "cauldron": cauldron,
    "video_instruct": video_instruct,
    "mmc4": mmc4,
    "obelics": obelics,
    "mint": mint,
    "plain": plain_text,
}
"""Layout → importer. `auto` looks at each row."""

_TELLTALES = {
    "messages": "messages",
    "conversations": "llava",
    "conversation": "mantis",
    "video_id": "video_instruct",
    "text_list": "mmc4",
    "bff_contained_ngram_count_before_dedupe": "mint",
}
"""A key that only rows of this layout have."""


def detect(row: dict[str, Any]) -> str:
    """Which layout a row is in.

    Raises:
        Refused: `wrong_type` when it is none that we know.
    """
    for key, layout in _TELLTALES.items():
        if key in row:
            return layout
    texts = row.get("texts")
    if isinstance(texts, list):
        return "cauldron" if texts and isinstance(texts[0], dict) else "obelics"
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
