"""The contract of one built sample: its JSON, its media, its index row, its cost."""

import itertools
import json
from collections.abc import Generator, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from owl3.build.drafts import Medium, Place, clean
from owl3.build.findings import Finding
from owl3.build.media_reader import Gone, MediaReader, picture_facts
from owl3.cost import cost_of
from owl3.errors import InputError
from owl3.media import MediaError, open_image
from owl3.samples import PLACEHOLDERS, Sample, built_sample_id
from owl3.shards import Member
from owl3.tokens import SPECIAL_TOKENS, TextTokenizer

_COSTS = ("text_tokens", "trained_tokens", "plain_tokens", "plain_trained_tokens", "cut_tokens", "images", "tiles")


class SampleLinter:
    """Checks samples of one set."""

    ordered = True

    def __init__(self, workspace: Path, recipe: dict[str, Any]) -> None:
        self._reader = MediaReader(workspace)
        self._recipe = recipe
        self._tokenizer = _load_tokenizer(workspace, recipe)

    @staticmethod
    def members_of(row: dict[str, Any]) -> Iterator[Member]:
        """Where the index says a sample's members lie; referred media are read apart."""
        yield Member(f"{row['key']}.json", row["json_offset"], row["json_bytes"])
        for number, medium in enumerate(row["media"]):
            if medium["path"].startswith("samples/"):
                yield Member(f"{row['key']}.{number}", medium["offset"], medium["bytes"])

    def check(
        self, where: str, key: str, members: list[tuple[Member, bytes]], row: dict[str, Any] | None
    ) -> Iterator[Finding]:
        """Yield what is wrong with one sample."""
        files = [(member, data, member.name.partition(".")[2]) for member, data in members]
        found = next(((member, data) for member, data, extension in files if extension == "json"), None)
        if found is None:
            yield Finding("json", where, "has no KEY.json")
            return
        sample = yield from _parse(where, found[1])
        if row is not None and (row["json_offset"], row["json_bytes"]) != (found[0].offset, found[0].num_bytes):
            yield Finding("place", where, f"KEY.json lies at {found[0].offset}, the index says {row['json_offset']}")
        if sample is None:
            return
        yield from self._check_names(where, key, sample, row)
        yield from _check_text(where, sample)
        media = [(member, data, extension) for member, data, extension in files if extension != "json"]
        yield from self._check_media(where, sample, media, row)
        yield from self._check_cost(where, sample, row)

    def _check_names(self, where: str, key: str, sample: Sample, row: dict[str, Any] | None) -> Iterator[Finding]:
        if sample.id != key:
            yield Finding("sample-id", where, f"KEY.json is of sample {sample.id}")
        extra = str(sample.meta.get("extra", ""))
        wanted = built_sample_id(sample.builder, sample.builder_version, sample.seed, sample.parents, extra)
        if wanted != sample.id:
            yield Finding("sample-id", where, "the id does not follow from builder, version, seed and parents")
        if row is not None and (row["sample_id"] != sample.id or row["parents"] != list(sample.parents)):
            yield Finding("sample-id", where, "the index names another id or other parents")

    def _check_media(
        self, where: str, sample: Sample, media: list[tuple[Member, bytes, str]], row: dict[str, Any] | None
    ) -> Iterator[Finding]:
        referred = row is not None and bool(row["media"]) and not media
        declared = row["media"] if row is not None else []
        if not referred and len(media) != sample.num_media:
            yield Finding("media-count", where, f"the text refers to {sample.num_media} media, {len(media)} are there")
        if row is not None and len(declared) != sample.num_media:
            yield Finding(
                "media-count", where, f"the text refers to {sample.num_media} media, the index to {len(declared)}"
            )
        numbers = [extension.partition(".")[0] for _, _, extension in media]
        if numbers != [str(number) for number in range(len(media))]:
            yield Finding("media-order", where, f"media stand as {', '.join(numbers)}")
        for number, (member, data, extension) in enumerate(media):
            entry = declared[number] if number < len(declared) else None
            yield from _check_medium(f"{where}: medium {number}", data, extension.partition(".")[2], entry)
            if entry is not None and (entry["offset"], entry["bytes"]) != (member.offset, member.num_bytes):
                yield Finding(
                    "place", f"{where}: medium {number}", f"lies at {member.offset}, the index says {entry['offset']}"
                )
        for number, entry in enumerate(declared if referred else []):
            place = Place(entry["path"], entry["offset"], entry["bytes"])
            try:
                data = self._reader.read(Medium(place=place))
            except Gone as gone:
                yield Finding("place", f"{where}: medium {number}", gone.detail)
                continue
            yield from _check_medium(f"{where}: medium {number}", data, "", entry)
        times = [segment.time_s for segment in sample.segments if segment.time_s is not None]
        backwards = sum(later < earlier for earlier, later in itertools.pairwise(times))
        if backwards >= max(1, len(sample.parents)) or any(time < 0 for time in times):  # each clip begins anew
            yield Finding("frame-time", where, f"frames of {len(sample.parents)} parents are shown at {times}")

    def _check_cost(self, where: str, sample: Sample, row: dict[str, Any] | None) -> Iterator[Finding]:
        for key, column in (("max_images", "images"), ("max_text_tokens", "text_tokens")):
            limit = self._recipe.get(key)
            declared = sample.num_media if column == "images" else (row or {}).get(column)
            if limit is not None and declared is not None and declared > limit:
                yield Finding("budget", where, f"{column} {declared} is over {key} {limit}")
        if row is None or self._tokenizer is None or len(row["media"]) != sample.num_media:
            return
        sizes = [(medium["width"], medium["height"]) for medium in row["media"]]
        if any(min(size) < 1 for size in sizes):
            return  # the sizes are a finding already
        cost = cost_of(
            sample.segments,
            sample.turns,
            sizes,
            tokenizer=self._tokenizer,
            release=self._recipe["release"],
            tile_px=self._recipe["tile_px"],
        ).as_row()
        wrong = [f"{name} {row[name]} is {cost[name]}" for name in _COSTS if row[name] != cost[name]]
        if wrong:
            yield Finding("cost", where, "; ".join(wrong))


def _load_tokenizer(workspace: Path, recipe: dict[str, Any]) -> TextTokenizer | None:
    """The tokenizer that costs were counted with, where it still is."""
    if not {"tokenizer", "release", "tile_px"} <= recipe.keys():
        return None
    try:
        return TextTokenizer.load(workspace / "tokenizers" / str(recipe["tokenizer"]))
    except InputError:
        return None  # samples travel without it; their costs are then as declared


def _parse(where: str, data: bytes) -> Generator[Finding, None, Sample | None]:
    """Yield findings; return the sample, or None when it is none."""
    try:
        raw = json.loads(data)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        yield Finding("json", where, f"KEY.json is not JSON: {error}")
        return None
    try:
        return Sample.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"{'.'.join(str(part) for part in first['loc']) or 'sample'}: {first['msg']}"
        rule = "placeholder" if "placeholder" in first["msg"] else "json"
        yield Finding(rule, where, message)
        return None


def _check_text(where: str, sample: Sample) -> Iterator[Finding]:
    for number, segment in enumerate(sample.segments):
        if segment.text is None:
            continue
        mark = next((mark for mark in (*PLACEHOLDERS, *SPECIAL_TOKENS) if mark in segment.text), None)
        if mark is not None:
            yield Finding("placeholder", where, f"segment {number} holds {mark}")
        elif not segment.text:
            yield Finding("text", where, f"segment {number} is empty")
        elif clean(segment.text) != segment.text:
            yield Finding("text", where, f"segment {number} holds control characters or is not in NFC")
    if not sample.turns:
        return
    roles = [turn.role for turn in sample.turns if turn.role != "system"]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not roles:
        yield Finding("roles", where, f"turns are {', '.join(turn.role for turn in sample.turns)}")
    for number, turn in enumerate(sample.turns):
        said = "".join(segment.text or "" for segment in sample.segments[turn.start : turn.end])
        if turn.role == "assistant" and not said.strip():
            yield Finding("text", where, f"turn {number} is an empty answer")


def _check_medium(where: str, data: bytes, extension: str, entry: dict[str, Any] | None) -> Iterator[Finding]:
    if entry is not None and sha256(data).hexdigest() != entry["sha256"]:
        yield Finding("sha256", where, "the bytes have another hash than declared")
    try:
        true_extension, width, height = picture_facts(data)
        open_image(data)
    except MediaError as error:
        yield Finding("decode", where, f"{error.reason}: {error}")
        return
    if extension and extension != true_extension:
        yield Finding("extension", where, f"is named .{extension}, and is .{true_extension}")
    if entry is not None and (entry["width"], entry["height"]) != (width, height):
        yield Finding("size", where, f"is {width} x {height}, declared {entry['width']} x {entry['height']}")
