"""The contract of one curated pair: KEY.jpg, KEY.txt and KEY.json (img2dataset's layout) and its row."""

from collections.abc import Iterator
from hashlib import sha256
from typing import Any

from owl3.build.findings import Finding
from owl3.build.media_reader import picture_facts
from owl3.media import MediaError, open_image
from owl3.samples import is_redacted, url_sample_id
from owl3.shards import Member

_CLIPS = ("mp4", "webm", "avi", "mkv", "mov")
_SPELLINGS = {"jpeg": "jpg"}


class PairLinter:
    """Checks kept pairs of a shard set."""

    ordered = False  # rows stand in the order of the source, dropped ones between

    @staticmethod
    def members_of(row: dict[str, Any]) -> Iterator[Member]:
        """Where the table says a pair's members lie; the caption's file has no place of its own."""
        extension = row.get("extension") or "jpg"
        yield Member(f"{row['key']}.{extension}", row["media_offset"], row["media_bytes"])
        if row.get("json_offset") is not None:
            yield Member(f"{row['key']}.json", row["json_offset"], row["json_bytes"])

    def check(
        self, where: str, key: str, members: list[tuple[Member, bytes]], row: dict[str, Any] | None
    ) -> Iterator[Finding]:
        """Yield what is wrong with one pair."""
        media = [(m, data) for m, data in members if m.name.rpartition(".")[2] not in ("json", "txt")]
        if len(media) != 1:
            yield Finding("media-count", where, f"{len(media)} media, a pair has one")
            return
        member, data = media[0]
        texts = [text for m, text in members if m.name.endswith(".txt")]
        yield from _check_picture(where, member, data, row)
        if row is None:
            return
        if texts and texts[0].decode("utf-8", "replace") != (row["caption"] or ""):
            yield Finding("text", where, "KEY.txt is not the caption of the table")
        caption = row["caption"] or ""
        if row["sample_id"] != key or not (is_redacted(caption) or url_sample_id(row["url"], caption) == key):
            yield Finding("sample-id", where, "the id does not follow from URL and caption")
        if row["sha256"] != sha256(data).hexdigest():
            yield Finding("sha256", where, "the bytes have another hash than declared")
        if (row["media_offset"], row["media_bytes"]) != (member.offset, member.num_bytes):
            yield Finding("place", where, f"the medium lies at {member.offset}, the table says {row['media_offset']}")


def _check_picture(where: str, member: Member, data: bytes, row: dict[str, Any] | None) -> Iterator[Finding]:
    extension = member.name.rpartition(".")[2].lower()
    if extension in _CLIPS:
        return  # clips were decoded when they were curated; frames are checked where samples hold them
    try:
        true_extension, width, height = picture_facts(data)
        open_image(data)
    except MediaError as error:
        yield Finding("decode", where, f"{error.reason}: {error}")
        return
    if _SPELLINGS.get(extension, extension) != true_extension:
        yield Finding("extension", where, f"is named .{extension}, and is .{true_extension}")
    if row is not None and row.get("width") and (row["width"], row["height"]) != (width, height):
        yield Finding("size", where, f"is {width} x {height}, declared {row['width']} x {row['height']}")
