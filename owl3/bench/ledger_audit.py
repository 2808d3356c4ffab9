"""What a card of a large corpus costs, and an audit of its bytes against reading them with sha256 alone."""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from owl3.bench.ledger_world import write_ledger
from owl3.cards import rederive
from owl3.cards.config import CardConfig
from owl3.cards.facts import Facts
from owl3.cards.render import card
from owl3.config import canonical_json
from owl3.curate.table import SHARD_TABLE
from owl3.samples import url_sample_id
from owl3.shards import ShardWriter, write_index
from owl3.storage import sha256_of


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def time_card(folder: Path, rows: int) -> float:
    """Seconds to render the card of a corpus of `rows` rows, from its tables to its documents."""
    shutil.rmtree(folder, ignore_errors=True)
    workspace, datacards = folder / "workspace", folder / "datacards"
    place = {"media_offset": "512", "media_bytes": f"{len(_noise(0))}", "extension": "'jpg'", "format": "'jpeg'"}
    write_ledger(workspace, rows, place)
    for table in sorted((workspace / "shards" / "web").glob("*.parquet")):
        with ShardWriter(table.with_suffix(".tar")) as tar:
            tar.add("0" * 32, {"jpg": _noise(0)})
    (datacards / "bench").mkdir(parents=True)
    (datacards / "bench" / "facts.yaml").write_text(yaml.safe_dump(_facts()))
    cfg = CardConfig(name="bench", shards=("web",), samples=("four",))
    seconds = _timed(lambda: card(cfg, workspace, datacards))
    shutil.rmtree(folder)
    return seconds


def _facts() -> dict[str, Any]:
    """Facts that say what this corpus is: every fact the same one."""
    fact = {"text": "A synthetic ledger, made to measure time.", "source": "owl3/bench/ledger_world.py"}
    text = fact["text"]
    licence = {
        "id": "cc0-1.0",
        "spdx": "CC0-1.0",
        "name": "CC0",
        "url": "https://creativecommons.org/publicdomain/zero/1.0/",
    }
    special = {
        "name": "bench",
        "pretty_name": "Bench",
        "kind": "synthetic",
        "tasks": ["image-to-text"],
        "licence": licence | {"pictures": fact, "source": text},
        "collected": {"start": None, "end": "2026-01-01", "source": text},
        "has_personal_data": False,
        "released": "2026-01-01",
        "contact": {"name": text, "address": text, "takedown": text},
        "provider": {"name": text, "address": text, "size": "small"},
        "citation": {"bibtex": text, "url": "https://example.org"},
    }
    lists = {"intended_uses", "unsuitable_uses", "biases", "hazards"}
    return {key: special.get(key, [fact] if key in lists else fact) for key in Facts.model_fields}


def audit_against_hashing(folder: Path, pictures: int) -> dict[str, Any]:
    """Derive the rows of one shard of photo-sized JPEGs, against hashing its tar."""
    shutil.rmtree(folder, ignore_errors=True)
    rows = _write_shard(folder, pictures)
    tar = folder / "00000.tar"
    alone = min(_timed(lambda: sha256_of(tar)) for _ in range(3))
    derived = min(_timed(lambda: rederive.shard(folder, "00000")) for _ in range(3))
    num_bytes = tar.stat().st_size
    shutil.rmtree(folder)
    return {
        "audit_pictures": len(rows),
        "audit_bytes": num_bytes,
        "audit_processes": 1,
        "sha256_mb_per_s": round(num_bytes / 1e6 / alone, 1),
        "audit_mb_per_s": round(num_bytes / 1e6 / (alone + derived), 1),
        "audit_against_sha256": round(alone / (alone + derived), 3),
    }


def _noise(seed: int) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def _write_shard(folder: Path, pictures: int) -> list[dict[str, Any]]:
    """JPEGs of noise, about 40 KB each, the size of a picture in a web corpus."""
    kinds = [_noise(seed) for seed in range(16)]
    rows: list[dict[str, Any]] = []
    with ShardWriter(folder / "00000.tar") as tar:
        for number in range(pictures):
            data, caption, url = kinds[number % 16], f"noise {number}", f"http://a.example.org/{number}.jpg"
            row: dict[str, Any] = {"sample_id": url_sample_id(url, caption), "url": url, "caption": caption}
            row |= {"decision": "kept", "width": 256, "height": 256, "extension": "jpg", "bytes": len(data)}
            row |= {"key": row["sample_id"], "sha256": hashlib.sha256(data).hexdigest()}
            members = {"jpg": data, "txt": caption.encode(), "json": canonical_json(row)}
            jpg, _, side = tar.add(row["key"], members)
            row |= {"media_offset": jpg.offset, "media_bytes": jpg.num_bytes}
            rows.append(row | {"json_offset": side.offset, "json_bytes": side.num_bytes})
    write_index(folder / "00000.parquet", rows, SHARD_TABLE)
    return rows
