"""`text_reading`: pictures with text, transcribed or summed up, UReader's tasks (facts/owl3.md §3.3).

user: [image] Read out the text in this image.          assistant: The picture reads MIND THE GAP
user: [image] Identify some key points in this picture. assistant: 1. …\\n2. …

What the pictures read comes from a column of the shard tables (`src_ocr`: the corpus' own OCR field), in any of the
forms that corpora have:

    "MIND THE GAP"                                                             COYO-OCR
    ["MIND", "THE", "GAP"]                                                     TextVQA, `ocr_tokens`
    [{"utf8_string": "MIND", "points": […]}, {"utf8_string": ".", …}, …]       TextOCR; "." and "###" can't be read
"""

import json
from collections.abc import Sequence
from typing import Any

from owl3.build.base import PoolBuilder
from owl3.build.config import TextReadingBuild
from owl3.build.drafts import Draft, Refused, Script, clean_text
from owl3.build.pool import medium_of

_WORD_KEYS = ("text", "utf8_string", "transcription", "word")
_ILLEGIBLE = (".", "###", "*")


class TextReadingBuilder(PoolBuilder[TextReadingBuild]):
    """See the head of this file."""

    code_version = "1"
    words = "text_reading"

    @classmethod
    def extras(cls, cfg: Any) -> tuple[str | None, ...]:
        """The text, and its key points."""
        return (cfg.text_column, cfg.key_points_column)

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        parent = self.pool[rows[0]]
        text, points = clean_text(ocr_text(parent["extra"] or "")), clean_text(parent["extra2"] or "")
        if len(text) < self.cfg.min_characters:
            raise Refused("empty_text", f"{parent['sample_id']}: {len(text)} characters in {self.cfg.text_column}")
        dice, templates = self.dice(ordinal), self.templates()
        assert templates is not None
        language = self.language(text)
        lists_points = bool(points) and dice.below(2, "task") == 1
        if lists_points:
            ask, answer = templates.pick("points", language, dice), points
        else:
            ask = templates.pick("read", language, dice)
            answer = templates.pick("answer", language, dice).format(text=text)
        script = Script()
        script.turn("user", medium_of(parent, rows[0]), ask)
        script.turn("assistant", answer)
        return Draft(
            kind="text_reading",
            script=script,
            parents=(parent["sample_id"],),
            source=parent["source"] or "unknown",
            licence=parent["licence"] or "unknown",
            extra=f"{ask} {answer}" if lists_points else ask,
            meta={"task": "key_points" if lists_points else "read"},
        )


def ocr_text(field: str) -> str:
    """The text of an OCR field: as it stands, or the words of a JSON list in their order, without illegible ones."""
    if not field.startswith("["):
        return field
    try:
        entries = json.loads(field)
    except json.JSONDecodeError:
        return field  # a text that begins with a bracket
    words = [_word_of(entry) for entry in entries]
    if None in words:
        return field
    return " ".join(word for word in words if word and word not in _ILLEGIBLE)


def _word_of(entry: Any) -> str | None:
    """None when it is no word."""
    if isinstance(entry, dict):
        entry = next((entry[key] for key in _WORD_KEYS if key in entry), None)
    return entry.strip() if isinstance(entry, str) else None
