"""A small workspace as curation leaves it: shard sets of drawn pictures."""

import io
import json
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from owl3.manifest import Counts, write_manifest
from owl3.samples import url_sample_id
from owl3.shards import ShardWriter

WORDS = ("red", "green", "blue", "white", "black", "old", "new", "small", "large", "round")
THINGS = ("star", "boat", "dog", "house", "tree", "bus", "ring", "cup")


def picture(number: int, side: tuple[int, int] = (48, 32), picture_format: str = "PNG") -> bytes:
    """A picture that differs from all others."""
    pixels = np.random.default_rng(number).integers(0, 255, (side[1], side[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, picture_format)
    return buffer.getvalue()


def caption_of(number: int) -> str:
    """A caption that differs from all others."""
    return f"a {WORDS[number % 10]} {THINGS[number // 10 % 8]} number {number}"


def curated_row(number: int, **changes: Any) -> dict[str, Any]:
    """A row of a shard table, as `owl3 curate` writes it; `data` is the medium."""
    url = f"http://photos.owl3.test/{number:06d}.jpg"
    row = {
        "url": url,
        "caption": caption_of(number),
        "decision": "kept",
        "reason": None,
        "source": "drawn",
        "licence": "CC0-1.0",
        "data": picture(number),
        "extension": "png",
        "width": 48,
        "height": 32,
    }
    return row | changes


def write_shards(
    workspace: Path,
    name: str,
    rows: Sequence[dict[str, Any]],
    per_shard: int = 20,
    redacted: Mapping[str, str] | None = None,
) -> Path:
    """Write a shard set in curation's layout.

    Args:
        redacted: Captions that something was taken out of; ids stay those of the captions as they came.
    """
    folder = workspace / "shards" / name
    folder.mkdir(parents=True)
    for shard, first in enumerate(range(0, len(rows), per_shard)):
        _write_shard(folder, f"{shard:05d}", rows[first : first + per_shard], redacted or {})
    kept = sum(row["decision"] == "kept" for row in rows)
    dropped = {"not_found": len(rows) - kept} if kept < len(rows) else {}
    write_manifest(folder, kind="shards", name=name, counts=Counts(seen=len(rows), kept=kept, dropped=dropped))
    return folder


def _write_shard(folder: Path, name: str, rows: Sequence[dict[str, Any]], redacted: Mapping[str, str]) -> None:
    table = []
    with ShardWriter(folder / f"{name}.tar") as tar:
        for row in rows:
            sample_id = url_sample_id(row["url"], row["caption"])
            row = row | {"caption": redacted.get(row["caption"], row["caption"])}  # noqa: PLW2901
            entry = {key: value for key, value in row.items() if key not in ("data", "extension")}
            entry |= {"sample_id": sample_id, "canonical_url": row["url"], "shard": name, "key": sample_id}
            if row["decision"] == "kept":
                facts = json.dumps({"url": row["url"]}).encode()
                members = {row["extension"]: row["data"], "txt": row["caption"].encode(), "json": facts}
                place = tar.add(sample_id, members)[0]
                entry |= {"media_offset": place.offset, "media_bytes": place.num_bytes}
                entry |= {"sha256": sha256(row["data"]).hexdigest(), "media_sha256": sha256(row["data"]).hexdigest()}
            table.append(entry)
    names = dict.fromkeys(name for entry in table for name in entry)
    columns = {name: [entry.get(name) for entry in table] for name in names}
    for text in ("reason", "sha256"):
        columns[text] = pa.array(columns.get(text, [None] * len(table)), pa.string())
    for number in ("media_offset", "media_bytes"):
        columns[number] = pa.array(columns.get(number, [None] * len(table)), pa.int64())
    pq.write_table(pa.table(columns), folder / f"{name}.parquet")
