"""The ledger once more, from the tars: every value that bytes can prove is taken from them.

A row of a kept sample is rebuilt from its members: the id from the key, the caption from KEY.txt, hash, size and format
from the picture. Values that no byte of the tar can prove (how a URL answered, why it was dropped) are kept from the
table; they are tied to the source by id, and to everything else by the digest chain.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from owl3.cards.agreement import drops_are_sound, read_contents, to_look_at
from owl3.cards.built_agreement import agreed, derived_id
from owl3.cards.pictures import CLIPS, PICTURES, size_and_format
from owl3.cards.rows import Derived, Found, Row, derive_rows, read_stated
from owl3.cost import Cost, cost_of
from owl3.errors import InputError
from owl3.manifest import Manifest
from owl3.samples import Sample, is_redacted, url_sample_id
from owl3.shards import Member, read_member
from owl3.storage import stays_inside
from owl3.template import Release
from owl3.tokens import TextTokenizer


def shard(folder: Path, name: str, only: frozenset[str] | None = None) -> Derived:
    """Derive the rows of one curated shard again.

    A tar is read once and set against its table column by column; samples that do not agree are derived by themselves.

    Args:
        name: "00000"; the tar and the table lie in `folder`.
        only: Keys to derive from bytes (a random part); other kept rows are taken as stated.
    """
    derived = Derived()
    stated = read_stated(folder, name, derived)
    tar = folder / f"{name}.tar"
    if stated is None:
        return derived
    if only is not None or not tar.is_file():
        return derive_rows(folder, name, _curated_row, stated, derived, only=only)
    contents = read_contents(stated, tar)
    suspects = None if contents is None else to_look_at(contents)
    if contents is None or suspects is None:
        return derive_rows(folder, name, _curated_row, stated, derived, only=None)
    derived.tar_sha256 = contents.tar_sha256
    derived.num_members, derived.num_bytes = len(contents.names), int(contents.sizes.sum())
    if not suspects and drops_are_sound(stated):
        derived.table = folder / f"{name}.parquet"
        derived.num_rows, derived.num_read = len(stated), len(contents.media)
        return derived
    places = contents.members_of(suspects)
    derive_rows(folder, name, _curated_row, stated, derived, only=suspects, places=places)
    derived.num_read = len(contents.media)
    return derived


def samples(
    folder: Path, name: str, workspace: Path, counter: TokenCounter | None, only: frozenset[str] | None = None
) -> Derived:
    """Derive the rows of one shard of built samples again; see `shard`.

    All columns at once, and row by row where anything differs.

    Args:
        counter: Counts tokens anew; None (no tokenizer in the workspace) takes the table's counts.
    """

    def derive(key: str, found: Found, stated: Row) -> Row:
        sample = found.sample()
        row = _built_row(found, sample, stated, tar, workspace)
        return row if counter is None else row | counter.counts(sample, row["media"])

    derived, tar = Derived(), folder / f"{name}.tar"
    stated = read_stated(folder, name, derived)
    if stated is None:
        return derived
    whole = agreed(stated, tar, workspace, counter) if only is None and tar.is_file() else None
    if whole is None or not drops_are_sound(stated):
        return derive_rows(folder, name, derive, stated, derived, only=only)
    derived.table, derived.tar_sha256 = folder / f"{name}.parquet", whole.tar_sha256
    derived.num_rows, derived.num_read = len(stated), whole.num_samples
    derived.num_members, derived.num_bytes = whole.num_members, whole.num_bytes
    return derived


@dataclass(frozen=True)
class TokenCounter:
    """Counts a sample's tokens and tiles as the builder did."""

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
        return self.cost(sample, [(medium["width"], medium["height"]) for medium in media]).as_row()

    def cost(self, sample: Sample, sizes: Sequence[tuple[int, int]]) -> Cost:
        """What a sample costs whose media have these widths and heights."""
        return cost_of(
            sample.segments,
            sample.turns,
            sizes,
            tokenizer=self.tokenizer,
            release=self.release,
            tile_px=self.tile_px,
        )


def _curated_row(key: str, found: Found, stated: Row) -> Row:
    """A curated row from KEY.jpg (or .png, .mp4 …), KEY.txt and KEY.json.

    Raises:
        InputError: there is no picture or clip, or no URL and caption to name it by.
    """
    row = dict(stated) | {"key": key}
    record = _record(found)
    _claim(row, stated, {name: value for name, value in record.items() if name in stated})
    if "json" in found.members:
        _claim(row, stated, _place("json", found.members["json"][0]))
    if (text := found.data("txt")) is not None:
        _claim(row, stated, {"caption": text.decode("utf-8")})
    url, caption = row["url"], row["caption"]
    if not isinstance(url, str) or not isinstance(caption, str):
        raise InputError(f"no URL or no caption to name it by: {url!r}, {caption!r}")
    # The id is that of the caption as it came; one that was redacted is compared with the source's (`redaction.py`).
    sample_id = key if is_redacted(caption) else url_sample_id(url, caption)
    _claim(row, stated, {"sample_id": sample_id, "key": sample_id})  # members are named by it
    media = [extension for extension in found.members if extension in PICTURES or extension in CLIPS]
    if not media:
        raise InputError("no picture and no clip among its members")
    for extension in media:
        member, data = found.members[extension]
        digest = hashlib.sha256(data).hexdigest()
        _claim(row, stated, {"sha256": digest, "bytes": len(data)} | _place("media", member))
        if extension in PICTURES:
            width, height, _ = size_and_format(data)
            _claim(row, stated, {"width": width, "height": height})
    return row


def _record(found: Found) -> Row:
    """KEY.json, as far as it is there.

    Raises:
        InputError: it is no object.
    """
    data = found.data("json")
    record = json.loads(b"{}" if data is None else data)
    if not isinstance(record, dict):
        raise InputError("KEY.json is no object")
    return record


def _claim(row: Row, stated: Row, values: Mapping[str, Any]) -> None:
    """Put derived values into a row; one that differs from what is stated stays, whatever else says the same again."""
    row |= {name: value for name, value in values.items() if row.get(name) == stated.get(name)}


def _built_row(found: Found, sample: Sample, stated: Row, tar: Path, workspace: Path) -> Row:
    """A built row from KEY.json (`sample`) and its media, in its own tar or (reference mode) in a parent's."""
    times = [segment.time_s for segment in sample.segments if segment.medium is not None]
    media = [
        _medium(_own(number, found), medium, tar, workspace) | {"time_s": time_s}
        for number, (medium, time_s) in enumerate(zip(stated["media"] or [], times, strict=True))
    ]
    own_id = derived_id(sample)
    return dict(stated) | {
        "key": sample.id,  # members are named by it
        "shard": tar.stem,
        "position": stated.get("position") if found.position is None else found.position,
        "sample_id": own_id if own_id == sample.id else f"{sample.id} (its parts hash to {own_id})",
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


def _own(number: int, found: Found) -> tuple[Member, bytes] | None:
    """A medium that lies beside its sample's record."""
    return next((entry for name, entry in found.members.items() if name.split(".")[0] == str(number)), None)


def _medium(own: tuple[Member, bytes] | None, stated: Row, tar: Path, workspace: Path) -> Row:
    if own is not None:
        member, data = own
        place: Row = {"path": "/".join(tar.parts[-3:]), "offset": member.offset, "bytes": member.num_bytes}
    else:
        place = {name: stated[name] for name in ("path", "offset", "bytes")}
        if not stays_inside(place["path"]):
            raise InputError(f"a medium in {place['path']!r}, which leads out of the workspace")
        if place["path"] == "/".join(tar.parts[-3:]):
            raise InputError("a medium in its own tar, but not under its own name")
        data = read_member(workspace / place["path"], place["offset"], place["bytes"])
    width, height, _ = size_and_format(data)
    return place | {"sha256": hashlib.sha256(data).hexdigest(), "width": width, "height": height}


def _place(prefix: str, member: Member) -> Row:
    return {f"{prefix}_offset": member.offset, f"{prefix}_bytes": member.num_bytes}
