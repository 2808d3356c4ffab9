"""Plain text, one document per row.

    {"text": "Give a man a fish and he eats for a day."}

Data-Juicer marks media inside such text (demo-dataset-videos.jsonl, first row):

    {"videos": ["../../tests/ops/data/video1.mp4"], "text": "<__dj__video> a cartoon"}
"""

from typing import Any

from owl3.build.drafts import Refused
from owl3.build.importers.chat import row_meta
from owl3.build.importers.documents import document
from owl3.build.importers.record import PLACEHOLDER, Record, RecordPart, media_names, text_of


def plain_text(row: dict[str, Any]) -> Record:
    """See the head of this file."""
    text = text_of(row, "text").replace("<|__dj__eoc|>", "")
    media = media_names(row.get("images")) + media_names(row.get("videos"), "video")
    marks = PLACEHOLDER.findall(text)
    if len(marks) != len(media):
        raise Refused("media_mismatch", f"{len(marks)} placeholders, {len(media)} media")
    parts: list[RecordPart] = []
    for index, piece in enumerate(PLACEHOLDER.split(text)):
        parts += [*media[index - 1 : index], piece]
    return document(parts, row_meta(row))
