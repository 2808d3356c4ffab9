"""A forger's tools: damage an artifact, then make every manifest around it consistent again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.config import canonical_json
from owl3.manifest import MANIFEST_NAME, Manifest
from owl3.shards import ShardWriter, iter_samples, write_table
from owl3.storage import sha256_of

Row = dict[str, Any]


def flip_byte(path: Path, offset: int = -1) -> None:
    """Change one byte; by default the one in the middle of the file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset < 0 else offset] ^= 0x01
    path.write_bytes(bytes(data))


def edit_text(path: Path, before: str, after: str) -> None:
    """Replace the first occurrence; it must be there."""
    text = path.read_text(encoding="utf-8")
    assert before in text, f"{before!r} is not in {path.name}"
    path.write_text(text.replace(before, after, 1), encoding="utf-8")


def edit_rows(path: Path, change: Callable[[list[Row]], list[Row] | None]) -> None:
    """Rewrite a Parquet table through Python rows; `change` edits in place or returns new rows."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    changed = change(rows)
    write_table(path, pa.Table.from_pylist(rows if changed is None else changed, schema=table.schema))


def edit_tar(path: Path, change: Callable[[list[tuple[str, dict[str, bytes]]]], None]) -> None:
    """Rewrite a tar sample by sample. Offsets move where sizes do; the index is left as it was."""
    samples = list(iter_samples(path))
    change(samples)
    with ShardWriter(path) as tar:
        for key, members in samples:
            tar.add(key, members)


def edit_json(data: bytes, **fields: Any) -> bytes:
    return canonical_json(json.loads(data) | fields)


def edit_manifest(folder: Path, **fields: Any) -> None:
    """Overwrite fields of a manifest without touching its digest."""
    path = folder / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_bytes()) | fields))


def reseal(folder: Path, **fields: Any) -> Manifest:
    """Make a manifest agree with the files again, and with the digest of what it says."""
    path = folder / MANIFEST_NAME
    manifest = Manifest.model_validate(json.loads(path.read_bytes()) | fields)
    entries = tuple(
        entry.model_copy(
            update={"bytes": (folder / entry.path).stat().st_size, "sha256": sha256_of(folder / entry.path)}
        )
        for entry in manifest.files
    )
    manifest = manifest.model_copy(update={"files": entries})
    manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
    path.write_text(json.dumps(manifest.model_dump(mode="json")))
    return manifest


def reseal_all(workspace: Path, card: Path, **counts: Any) -> None:
    """Forge the whole chain: every digest from the source to the card agrees with what lies there.

    Args:
        counts: Counts to put into a manifest, by kind (`shards={...}`).
    """
    digests: dict[tuple[str, str], str] = {}
    order = ["sources/tiny", "tokenizers/tiny", "shards/tiny", "samples/pairs"]
    for folder in [*(workspace / name for name in order), card]:
        manifest = Manifest.model_validate_json((folder / MANIFEST_NAME).read_bytes())
        parents = [
            parent.model_dump() | {"digest": digests.get((parent.kind, parent.name), parent.digest)}
            for parent in manifest.parents
        ]
        fields: dict[str, Any] = {"parents": parents}
        if manifest.kind in counts:
            fields["counts"] = counts[manifest.kind]
        sealed = reseal(folder, **fields)
        digests[(sealed.kind, sealed.name)] = sealed.digest
