"""What a card of a large corpus costs, and an audit of its bytes against reading them with sha256 alone."""

from __future__ import annotations

import hashlib
import io
import os
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from owl3.bench.ledger_world import write_ledger
from owl3.cards.audit import audit
from owl3.cards.config import CardConfig
from owl3.cards.facts import Facts
from owl3.cards.render import card
from owl3.config import canonical_json
from owl3.curate.table import SHARD_TABLE
from owl3.manifest import Counts, write_manifest
from owl3.samples import url_sample_id
from owl3.shards import ShardWriter, write_index
from owl3.storage import sha256_of

SHARD_BYTES = 256_000_000
"""Of an audited shard; processes share shards out."""

ROUNDS = 3
"""Hashing and auditing take turns, so that a busy machine slows both; the best of each is told."""


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def _cost(work: Callable[[], object]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of one call, those of the processes that it started included."""

    def cpu() -> float:
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return sum(one.ru_utime + one.ru_stime for one in used)

    before = cpu()
    return _timed(work), cpu() - before


def time_card(folder: Path, rows: int) -> float:
    """Seconds to render the card of a corpus of `rows` rows, from its tables to its documents."""
    shutil.rmtree(folder, ignore_errors=True)
    workspace, datacards = folder / "workspace", folder / "datacards"
    place = {"media_offset": "512", "media_bytes": f"{len(_noise(0))}", "extension": "'jpg'", "format": "'jpeg'"}
    write_ledger(workspace, rows, place)
    for table in sorted((workspace / "shards" / "web").glob("*.parquet")):
        with ShardWriter(table.with_suffix(".tar")) as tar:
            tar.add("0" * 32, {"jpg": _noise(0)})
    seconds = _timed(lambda: _card_of(workspace, datacards, "web", ("four",)))
    shutil.rmtree(folder)
    return seconds


def _card_of(workspace: Path, datacards: Path, shards: str, samples: tuple[str, ...] = ()) -> Path:
    (datacards / "bench").mkdir(parents=True)
    (datacards / "bench" / "facts.yaml").write_text(yaml.safe_dump(_facts()))
    cfg = CardConfig(name="bench", shards=(shards,), samples=samples)
    card(cfg, workspace, datacards)
    return datacards / "bench" / cfg.version


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


def audit_against_hashing(folder: Path, num_bytes: float, side_px: int = 256) -> dict[str, Any]:
    """Audit shards of photo-like JPEGs in full, against one process that only hashes their tars.

    Args:
        num_bytes: Of pictures in all. An audit also starts processes and makes the card anew, which takes as long for a
            small corpus as for a large one: of 0.3 GB these are half of the time, of 8 GB a fifteenth.
        side_px: 256 gives about 34 KB per picture, 640 about 200 KB.
    """
    shutil.rmtree(folder, ignore_errors=True)
    shards, datacards = folder / "workspace" / "shards" / "noise", folder / "datacards"
    kinds = [_noise(seed, side_px) for seed in range(16)]
    pictures = max(1, round(num_bytes * len(kinds) / sum(map(len, kinds))))
    num_shards = max(1, round(num_bytes / SHARD_BYTES))
    rows = 0
    for number in range(num_shards):
        rows += len(_write_shard(shards, number, -(-pictures // num_shards), side_px, kinds))
    write_manifest(shards, kind="shards", name="noise", counts=Counts(seen=rows, kept=rows))
    made = _card_of(folder / "workspace", datacards, "noise")
    tars = sorted(shards.glob("*.tar"))
    rounds = [
        (_cost(lambda: [sha256_of(tar) for tar in tars]), _cost(lambda: _audit(made, folder / "workspace")))
        for _ in range(ROUNDS)
    ]
    (alone, hashing_cpu), (audited, audit_cpu) = (
        (min(wall for wall, _ in costs), min(cpu for _, cpu in costs)) for costs in zip(*rounds, strict=True)
    )
    tar_bytes = sum(tar.stat().st_size for tar in tars)
    shutil.rmtree(folder)
    return {
        "pictures": rows,
        "shards": num_shards,
        "bytes": tar_bytes,
        "processes": len(os.sched_getaffinity(0)),
        "sha256_mb_per_s": round(tar_bytes / 1e6 / alone, 1),
        "audit_mb_per_s": round(tar_bytes / 1e6 / audited, 1),
        "share_of_sha256": round(alone / audited, 3),
        "cpu_over_sha256": round(audit_cpu / hashing_cpu, 2),
    }


def _audit(made: Path, workspace: Path) -> None:
    found = audit(made, workspace)
    assert found.passed, found.first_false()


def _noise(seed: int, side_px: int = 256) -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (side_px, side_px, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=60)
    return buffer.getvalue()


def _write_shard(folder: Path, shard: int, pictures: int, side_px: int, kinds: list[bytes]) -> list[dict[str, Any]]:
    """JPEGs of noise, in turn."""
    digests = [hashlib.sha256(data).hexdigest() for data in kinds]
    rows: list[dict[str, Any]] = []
    with ShardWriter(folder / f"{shard:05d}.tar") as tar:
        for number in range(shard * pictures, (shard + 1) * pictures):
            data, caption, url = kinds[number % 16], f"noise {number}", f"http://a.example.org/{number}.jpg"
            row: dict[str, Any] = {"sample_id": url_sample_id(url, caption), "url": url, "caption": caption}
            row |= {"decision": "kept", "width": side_px, "height": side_px, "extension": "jpg", "bytes": len(data)}
            row |= {"key": row["sample_id"], "shard": f"{shard:05d}", "sha256": digests[number % 16]}
            members = {"jpg": data, "txt": caption.encode(), "json": canonical_json(row)}
            jpg, _, side = tar.add(row["key"], members)
            row |= {"media_offset": jpg.offset, "media_bytes": jpg.num_bytes}
            rows.append(row | {"json_offset": side.offset, "json_bytes": side.num_bytes})
    write_index(folder / f"{shard:05d}.parquet", rows, SHARD_TABLE)
    return rows
