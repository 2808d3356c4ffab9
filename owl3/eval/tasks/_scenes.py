"""What the three scene tasks share: their questions.jsonl.

    {"id": "s0412-colour", "media": ["s0412.jpg"], "question": "What colour is the circle?", "answer": "red",
     "options": ["blue", "green", "red", "yellow"], "type": "colour", "group": "s0412"}

With several pictures, `index` names the one that is asked about, counting from 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from owl3.errors import InputError
from owl3.eval.items import Item, Parsed
from owl3.eval.parsing import parse_closed

MAX_NEW_TOKENS = 8  # the longest answer of the scene world is one word


def read_questions(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the lines of questions.jsonl.

    Raises:
        InputError: the file is missing, a line is not JSON, or an id comes twice.
    """
    path = folder / "questions.jsonl"
    if not path.is_file():
        raise InputError(f"{path}: missing; a scene benchmark is a folder with questions.jsonl and its media")
    seen: set[str] = set()
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not JSON ({error.msg})") from error
            missing = {"id", "media", "question", "answer", "options"} - row.keys()
            if missing:
                raise InputError(f"{path}:{number}: lacks {', '.join(sorted(missing))}")
            if row["id"] in seen:
                raise InputError(f"{path}:{number}: question id {row['id']!r} comes twice")
            seen.add(row["id"])
            yield row


def make_item(row: dict[str, Any], prompt: tuple[Any, ...]) -> Item:
    """An item with this prompt and the row's answer, options and type."""
    return Item(
        id=str(row["id"]),
        prompt=prompt,
        answers=(row["answer"],),
        options=tuple(row["options"]),
        group=str(row.get("group", row["media"][0])),
        category=str(row.get("type", "")),
        meta={"media": len(row["media"])},
    )


def parse(item: Item, raw: str) -> Parsed:
    """One of the options."""
    return parse_closed(raw, item.options)
