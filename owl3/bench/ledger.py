"""How fast the ledger answers: trace, impact of a retraction, top domains, card; and a full audit against sha256 alone.

The ledger is synthetic: img2dataset's 10,000 rows per shard, half a million domains with a long tail, one built sample
per four pictures. Targets (issue of the datacards) are for 100 M rows on 2 cores and 4 GB; every figure here comes with
the number of rows it was measured on, and queries that scan grow in proportion to it.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
from PIL import Image

from owl3.cards import eu, figures, rederive, retract, tables
from owl3.cards.trace import trace, understand
from owl3.config import canonical_json
from owl3.curate.table import SHARD_TABLE
from owl3.ledger import connect
from owl3.samples import url_sample_id
from owl3.shards import ShardWriter, write_index
from owl3.storage import sha256_of

ROWS_PER_SHARD = 10_000
DOMAINS = 500_000
MEMORY_LIMIT = "4GB"


def run(out_dir: Path, *, rows: int = 100_000_000, pictures: int = 2_000) -> dict[str, Any]:
    """Write a ledger of `rows` rows and ask it; then audit a shard of `pictures` pictures."""
    workspace = out_dir / "ledger-bench"
    shutil.rmtree(workspace, ignore_errors=True)
    written = _timed(lambda: write_ledger(workspace, rows))
    middle = rows // 2
    url = f"http://{_domain(middle)}/{middle}.jpg"
    ids = [_sample_id(number) for number in range(0, rows, max(1, rows // 10_000))][:10_000]
    subjects = [understand(sample_id) for sample_id in ids]
    result: dict[str, Any] = {
        "rows": rows,
        "writing_s": written,
        "trace_url_s": _timed(lambda: trace(workspace, understand(url))),
        "trace_domain_s": _timed(lambda: trace(workspace, understand(_domain(middle)))),
        "impact_of_ids": len(subjects),
        "impact_s": _timed(lambda: retract.assess(workspace, subjects)),
        "top_domains_s": _timed(lambda: _top_domains(workspace)),
        "figures_s": _timed(lambda: _figures(workspace)),
    }
    shutil.rmtree(workspace)
    return result | audit_against_hashing(out_dir / "audit-bench", pictures)


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return round(time.perf_counter() - started, 3)


def _domain(number: int) -> str:
    """A long tail: the square makes small numbers frequent."""
    return f"d{(number * 2_654_435_761 % DOMAINS) ** 2 // DOMAINS}.example.org"


def _sample_id(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def write_ledger(workspace: Path, rows: int) -> None:
    """Write shard tables and sample indexes with DuckDB, 10,000 rows per file."""
    shards, samples = workspace / "shards" / "web", workspace / "samples" / "four"
    shards.mkdir(parents=True)
    samples.mkdir(parents=True)
    with duckdb.connect() as db:
        db.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        db.execute("set threads = 2")
        for number, start in enumerate(range(0, rows, ROWS_PER_SHARD)):
            end = min(start + ROWS_PER_SHARD, rows)
            db.execute(f"copy ({_shard_query(start, end, number)}) to '{shards}/{number:05d}.parquet' (codec zstd)")
            db.execute(f"copy ({_sample_query(start, end, number)}) to '{samples}/{number:05d}.parquet' (codec zstd)")


def _shard_query(start: int, end: int, number: int) -> str:
    domain = f"'d' || ((i * 2654435761 % {DOMAINS}) ** 2 // {DOMAINS})::bigint || '.example.org'"
    known = {
        "sample_id": "md5(i::varchar)",
        "url": f"'http://' || {domain} || '/' || i || '.jpg'",
        "canonical_url": f"'http://' || {domain} || '/' || i || '.jpg'",
        "domain": domain,
        "caption": "'a picture of thing number ' || i",
        "licence": "case when i % 3 = 0 then 'CC0-1.0' else 'unknown' end",
        "source": "'web'",
        "decision": "case when i % 5 = 0 then 'dropped' else 'kept' end",
        "reason": "case when i % 5 = 0 then 'not_found' end",
        "stage": "case when i % 5 = 0 then 'fetch' end",
        "shard": f"'{number:05d}'",
        "sha256": "sha256(i::varchar)",
        "media_sha256": "sha256(i::varchar)",
        "phash": "left(md5((i + 1)::varchar), 16)",
        "width": "(200 + i % 800)::integer",
        "height": "(200 + i % 600)::integer",
        "media_bytes": "(20000 + i % 9999)::bigint",
    }
    columns = ", ".join(f"{value} as {name}" for name, value in known.items())
    return f"select {columns} from range({start}, {end}) t(i)"


def _sample_query(start: int, end: int, number: int) -> str:
    return (
        "select md5('built' || i) as sample_id, 'kept' as decision, null::varchar as reason, "
        f"'{number:05d}' as shard, md5('built' || i) as key, (i - {start}) // 4 as position, 'selective' as kind, "
        "'selective_caption' as builder, 'web' as source, 'unknown' as licence, 4 as images, "
        "[md5(i::varchar), md5((i + 1)::varchar), md5((i + 2)::varchar), md5((i + 3)::varchar)] as parents "
        f"from range({start}, {end}, 4) t(i)"
    )


def _files(workspace: Path, kind: str) -> list[Path]:
    return sorted(workspace.glob(f"{kind}/*/*.parquet"))


def _top_domains(workspace: Path) -> object:
    with connect(workspace) as db:
        db.execute("create view kept as select domain from shard_rows where decision = 'kept'")
        return eu.domain_amounts(db)


def _figures(workspace: Path) -> object:
    with tables.open_tables(_files(workspace, "shards"), _files(workspace, "samples")) as db:
        return figures.compute(db, tables.measured_columns(db))


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
        "sha256_mb_per_s": round(num_bytes / 1e6 / alone, 1),
        "audit_mb_per_s": round(num_bytes / 1e6 / (alone + derived), 1),
        "audit_against_sha256": round(alone / (alone + derived), 3),
    }


def _write_shard(folder: Path, pictures: int) -> list[dict[str, Any]]:
    """JPEGs of noise, about 40 KB each, the size of a picture in a web corpus."""
    random = np.random.default_rng(0)
    kinds = []
    for _ in range(16):
        buffer = io.BytesIO()
        Image.fromarray(random.integers(0, 256, (256, 256, 3), dtype=np.uint8)).save(buffer, "JPEG", quality=60)
        kinds.append(buffer.getvalue())
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
