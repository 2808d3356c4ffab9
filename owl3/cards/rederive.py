"""The ledger once more, from the tars: every value that bytes can prove is taken from them.

A row of a kept sample is rebuilt from its members: the id from the key, the caption from KEY.txt, hash, size and format
from the picture. Values that no byte of the tar can prove (how a URL answered, why it was dropped) are kept from the
table; they are tied to the source by id, and to everything else by the digest chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from owl3.cards.findings import Check, failed
from owl3.cards.pictures import CLIPS, size_and_format
from owl3.cards.redaction import is_redacted
from owl3.errors import InputError
from owl3.ledger import REASONS
from owl3.manifest import Manifest
from owl3.media import MediaError
from owl3.samples import Sample, built_sample_id, url_sample_id
from owl3.shards import Member, iter_members, read_member
from owl3.template import Release, render, tokenize
from owl3.tiling import choose_grid
from owl3.tokens import TextTokenizer

PICTURES = ("jpg", "jpeg", "png", "webp", "gif")

Row = dict[str, Any]


@dataclass
class Derived:
    """Rows of one shard as derived, and where the table says something else."""

    rows: list[Row] = field(default_factory=list)
    problems: list[Check] = field(default_factory=list)
    num_members: int = 0
    num_bytes: int = 0


@dataclass
class Found:
    """The members of one key in a tar."""

    members: dict[str, tuple[Member, bytes]] = field(default_factory=dict)

    def data(self, extension: str) -> bytes | None:
        """The bytes of KEY.extension."""
        entry = self.members.get(extension)
        return entry[1] if entry else None

    def sample(self) -> Sample:
        """KEY.json as a sample.

        Raises:
            InputError: there is none.
        """
        record = self.data("json")
        if record is None:
            raise InputError("no KEY.json")
        return Sample.model_validate_json(record)


def keys_of(tar: Path, derived: Derived) -> Iterator[tuple[str, Found]]:
    """Read a tar front to back, key by key; a damaged end is a problem, not an exception."""
    key, found = "", Found()
    try:
        for member, data in iter_members(tar):
            derived.num_members += 1
            derived.num_bytes += len(data)
            stem, _, extension = member.name.partition(".")
            if stem != key and found.members:
                yield key, found
                found = Found()
            key = stem
            if extension in found.members:
                derived.problems.append(failed("rows", f"{tar.name} {member.name}", "one member", "two of one name"))
            found.members[extension] = (member, data)
    except InputError as error:
        derived.problems.append(failed("rows", tar.name, "a whole tar", str(error)))
    if found.members:
        yield key, found


def shard(folder: Path, name: str, only: frozenset[str] | None = None) -> Derived:
    """Derive the rows of one curated shard again.

    Args:
        name: "00000"; the tar and the table lie in `folder`.
        only: Keys to derive from bytes (a random part); other kept rows are taken as stated.
    """
    return _derive(folder, name, _curated_row, only)


def samples(
    folder: Path, name: str, workspace: Path, counter: TokenCounter | None, only: frozenset[str] | None = None
) -> Derived:
    """Derive the rows of one shard of built samples again; see `shard`.

    Args:
        counter: Counts tokens anew; None (no tokenizer in the workspace) takes the table's counts.
    """

    def derive(key: str, found: Found, stated: Row) -> Row:
        row = _built_row(key, found, stated, workspace)
        return row if counter is None else row | counter.counts(found.sample(), row["media"])

    return _derive(folder, name, derive, only)


@dataclass(frozen=True)
class TokenCounter:
    """Counts a sample's tokens as the builder did: whole pictures, in chat style."""

    tokenizer: TextTokenizer
    release: Release
    tile_px: int

    @classmethod
    def of(cls, manifest: Manifest, workspace: Path) -> TokenCounter | None:
        """The counter that a samples artifact was built with; None when its tokenizer is not there.

        Raises:
            InputError: the tokenizer there is another one.
        """
        parent = next((parent for parent in manifest.parents if parent.kind == "tokenizer"), None)
        if parent is None or "tokenizer_digest" not in manifest.stats:
            return None
        tokenizer = TextTokenizer.load(workspace / "tokenizers" / parent.name)
        if tokenizer.digest != manifest.stats["tokenizer_digest"]:
            raise InputError(f"tokenizer {parent.name}: is another one than {manifest.name} was built with")
        return cls(tokenizer, manifest.stats["release"], int(manifest.stats["tile_px"]))

    def counts(self, sample: Sample, media: list[Row]) -> Row:
        """The cost columns of the sample index."""
        frames = {segment.medium for segment in sample.segments if segment.frame is not None}
        sizes = {number: (medium["width"], medium["height"]) for number, medium in enumerate(media)}
        grids = {n: choose_grid(*size, self.tile_px) for n, size in sizes.items() if n not in frames}
        chunks = render(sample.segments, sample.turns, release=self.release, style="chat")
        text = tokenize(chunks, self.tokenizer)
        return {
            "text_tokens": len(text.input_ids),
            "trained_tokens": sum(text.trained),
            "tiles": [grids[n][0] * grids[n][1] + 1 if n in grids else 1 for n in sizes],
        }


def _derive(folder: Path, name: str, derive: Any, only: frozenset[str] | None) -> Derived:
    derived = Derived()
    tar, label = folder / f"{name}.tar", f"{folder.name}/{name}"
    singles: list[str] = []
    try:
        table = pq.read_table(folder / f"{name}.parquet")
        stated_rows = table.to_pylist()
        singles = [field.name for field in table.schema if field.type == pa.float32()]
    except (OSError, pa.ArrowException) as error:
        derived.problems.append(failed("rows", f"{label}.parquet", "a readable table", str(error).splitlines()[0]))
        stated_rows = []
    kept: dict[str, Row] = {}
    for row in stated_rows:
        if row.get("decision") == "kept":
            if row["key"] in kept:
                derived.problems.append(failed("rows", f"{label} {row['key']}", "one row", "two rows of one key"))
            kept[row["key"]] = row
        else:
            derived.problems += _check_drop(label, row)
            derived.rows.append(row)
    order: list[str] = []
    for key, found in _members(tar, kept, derived, only):
        order.append(key)
        stated = kept.pop(key, None)
        if stated is None:
            derived.problems.append(failed("rows", f"{label} {key}", "no such sample", "members in the tar"))
            continue
        try:
            row = derive(key, found, stated)
        except (InputError, MediaError, ValidationError, ValueError, KeyError) as error:
            derived.problems.append(failed("rows", f"{label} {key}", "a readable sample", str(error).splitlines()[0]))
            continue
        # JSON holds what was measured; the table holds it in single precision.
        row |= {single: float(np.float32(row[single])) for single in singles if row.get(single) is not None}
        derived.problems += _differences(label, key, stated, row)
        derived.rows.append(row)
    if only is None:
        derived.problems += [failed("rows", f"{label} {key}", "kept", "not in the tar") for key in kept]
        stated_order = [row["key"] for row in sorted(_kept(stated_rows), key=lambda row: row.get("position") or 0)]
        if not kept and order != stated_order and len(order) == len(stated_order):
            derived.problems.append(failed("rows", label, "samples in the order of their positions", "another order"))
    else:
        derived.rows += kept.values()
    return derived


def _kept(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.get("decision") == "kept"]


def _members(
    tar: Path, kept: Mapping[str, Row], derived: Derived, only: frozenset[str] | None
) -> Iterable[tuple[str, Found]]:
    """All keys of a tar, or the chosen ones by their place."""
    if only is None:
        return keys_of(tar, derived) if tar.is_file() else []
    return [(key, _by_place(tar, kept[key], derived)) for key in sorted(only & kept.keys())]


def _by_place(tar: Path, row: Row, derived: Derived) -> Found:
    found = Found()
    places: list[tuple[str, int, int]] = [("json", row["json_offset"], row["json_bytes"])]
    if row.get("media_offset") is not None:
        places.append((_extension(row), row["media_offset"], row["media_bytes"]))
    places += [
        (f"{number}.jpg", medium["offset"], medium["bytes"])
        for number, medium in enumerate(row.get("media") or [])
        if Path(medium["path"]).name == tar.name
    ]
    for extension, offset, num_bytes in places:
        try:
            data = read_member(tar, offset, num_bytes)
        except (InputError, OSError) as error:
            derived.problems.append(failed("rows", f"{tar.name} {row['key']}", "readable bytes", str(error)))
            continue
        found.members[extension] = (Member(f"{row['key']}.{extension}", offset, num_bytes), data)
        derived.num_members += 1
        derived.num_bytes += num_bytes
    return found


def _extension(row: Row) -> str:
    return str(row.get("extension") or "jpg")


def _curated_row(key: str, found: Found, stated: Row) -> Row:
    """A curated row from KEY.jpg (or .png, .mp4 …), KEY.txt and KEY.json."""
    row = dict(stated) | {"key": key, "sample_id": key}
    if (record := found.data("json")) is not None:
        fields = json.loads(record)
        row |= {name: fields[name] for name in fields if name in stated}
        row |= _place("json", found.members["json"][0])
    if (text := found.data("txt")) is not None:
        row["caption"] = text.decode("utf-8")
    derived_id = url_sample_id(row["url"], row["caption"])
    # The id is that of the caption as it came; one that was redacted is compared with the source's (`redaction.py`).
    row["sample_id"] = key if is_redacted(row["caption"]) else derived_id
    for extension, (member, data) in found.members.items():
        if extension in PICTURES or extension in CLIPS:
            row |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} | _place("media", member)
        if extension in PICTURES:
            row["width"], row["height"], _ = size_and_format(data)
    return row


def _built_row(key: str, found: Found, stated: Row, workspace: Path) -> Row:
    """A built row from KEY.json and its media, in its own tar or (reference mode) in a parent's."""
    sample = found.sample()
    times = [segment.time_s for segment in sample.segments if segment.medium is not None]
    media = [
        _medium(number, found, medium, time_s, workspace)
        for number, (medium, time_s) in enumerate(zip(stated["media"] or [], times, strict=True))
    ]
    extra = str(sample.meta.get("extra", ""))
    derived_id = built_sample_id(sample.builder, sample.builder_version, sample.seed, sample.parents, extra)
    return dict(stated) | {
        "key": key,
        "sample_id": derived_id if derived_id == sample.id else f"{sample.id} (its parts hash to {derived_id})",
        "kind": sample.kind,
        "builder": sample.builder,
        "builder_version": sample.builder_version,
        "seed": sample.seed,
        "source": sample.source,
        "licence": sample.licence,
        "parents": list(sample.parents),
        "images": sample.num_media,
        "media": media,
        **_place("json", found.members["json"][0]),
    }


def _medium(number: int, found: Found, stated: Row, time_s: float | None, workspace: Path) -> Row:
    own = next((entry for name, entry in found.members.items() if name.split(".")[0] == str(number)), None)
    if own is not None:
        member, data = own
        place = {"offset": member.offset, "bytes": member.num_bytes}
    else:
        data = read_member(workspace / stated["path"], stated["offset"], stated["bytes"])
        place = {"offset": stated["offset"], "bytes": stated["bytes"]}
    width, height, _ = size_and_format(data)
    digest = hashlib.sha256(data).hexdigest()
    return {"path": stated["path"], **place, "sha256": digest, "width": width, "height": height, "time_s": time_s}


def _place(prefix: str, member: Member) -> Row:
    return {f"{prefix}_offset": member.offset, f"{prefix}_bytes": member.num_bytes}


def _differences(label: str, key: str, stated: Row, row: Row) -> list[Check]:
    return [
        failed("rows", f"{label} {key} {name}", stated.get(name), value)
        for name, value in row.items()
        if stated.get(name) != value and name in stated
    ]


def _check_drop(label: str, row: Row) -> list[Check]:
    """A row that is not kept must be dropped, for a reason of the closed list."""
    subject = f"{label} {row.get('sample_id')}"
    if row.get("decision") != "dropped":
        return [failed("rows", f"{subject} decision", row.get("decision"), "neither kept nor dropped")]
    if row.get("reason") not in REASONS:
        return [failed("rows", f"{subject} reason", row.get("reason"), "not on the closed list")]
    return []
