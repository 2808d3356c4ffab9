"""A synthetic ledger: the tables of a web corpus without its pictures, and of samples built from it.

10,000 rows per shard as img2dataset writes them, half a million hosts with a long tail, one drop in five, one built
sample per four pictures. DuckDB makes every value from the row's number, so anybody can say what must be found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

from owl3.cards.tables import quoted
from owl3.manifest import Counts, Manifest, write_manifest
from owl3.storage import partial_path

ROWS_PER_SHARD = 10_000
PICTURES_PER_SAMPLE = 4
DROP_EVERY = 5
DOMAINS = 500_000
_MULTIPLIER = 2_654_435_761
_WRITERS = 2


def domain_of(number: int) -> str:
    """The host of a row. The square makes few hosts frequent and most of them rare: the first has the most rows."""
    return f"d{(number * _MULTIPLIER % DOMAINS) ** 2 // DOMAINS}.example.org"


def url_of(number: int) -> str:
    """The URL of a row."""
    return f"http://{domain_of(number)}/{number}.jpg"


def sample_id_of(number: int) -> str:
    """The id of a row."""
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


def write_ledger(workspace: Path, rows: int, extra: Mapping[str, str] | None = None) -> tuple[Manifest, Manifest]:
    """Write shard tables and sample indexes, with their manifests; tables that a killed run finished are kept.

    Args:
        extra: Further columns of the shard tables, as SQL over the row's number `i`.
    """
    shards, samples = workspace / "shards" / "web", workspace / "samples" / "four"
    shards.mkdir(parents=True, exist_ok=True)
    samples.mkdir(parents=True, exist_ok=True)
    starts = range(0, rows, ROWS_PER_SHARD)
    with ThreadPoolExecutor(_WRITERS) as pool:
        list(pool.map(lambda start: _write_shard(shards, samples, start, rows, extra or {}), starts))
    dropped = len(range(0, rows, DROP_EVERY))
    counts = Counts(seen=rows, kept=rows - dropped, dropped={"not_found": dropped})
    web = write_manifest(shards, kind="shards", name="web", counts=counts)
    built = sum(_num_built(start, min(start + ROWS_PER_SHARD, rows)) for start in starts)
    four = write_manifest(samples, kind="samples", name="four", counts=Counts(seen=built, kept=built), parents=[web])
    return web, four


def _num_built(start: int, end: int) -> int:
    return -(-(end - start) // PICTURES_PER_SAMPLE)


def _write_shard(shards: Path, samples: Path, start: int, rows: int, extra: Mapping[str, str]) -> None:
    end, number = min(start + ROWS_PER_SHARD, rows), start // ROWS_PER_SHARD
    with duckdb.connect(":memory:", config={"threads": 1}) as db:
        for folder, query in (
            (shards, _shard_query(start, end, number, extra)),
            (samples, _sample_query(start, end, number)),
        ):
            path = folder / f"{number:05d}.parquet"
            if not path.is_file():
                aside = partial_path(path)
                db.execute(f"copy ({query}) to {quoted(str(aside))} (format parquet, codec zstd)")
                aside.replace(path)


def _shard_query(start: int, end: int, number: int, extra: Mapping[str, str]) -> str:
    dropped = f"i % {DROP_EVERY} = 0"
    known = {
        "sample_id": "md5(i::varchar)",
        "url": "'http://' || host || '/' || i || '.jpg'",
        "canonical_url": "'http://' || host || '/' || i || '.jpg'",
        "domain": "host",
        "caption": "'a picture of thing number ' || i",
        "language": "case when i % 7 = 0 then 'zh' else 'en' end",
        "licence": "case when i % 3 = 0 then 'CC0-1.0' else 'unknown' end",
        "source": "'web'",
        "decision": f"case when {dropped} then 'dropped' else 'kept' end",
        "reason": f"case when {dropped} then 'not_found' end",
        "stage": f"case when {dropped} then 'fetch' end",
        "shard": f"'{number:05d}'",
        "key": f"case when {dropped} then null else md5(i::varchar) end",
        "position": "i",
        "sha256": f"case when {dropped} then null else sha256(i::varchar) end",
        "media_sha256": f"case when {dropped} then null else sha256((-i)::varchar) end",
        "phash": "left(md5((i + 1)::varchar), 16)",
        "width": "(200 + i % 800)::integer",
        "height": "(200 + i % 600)::integer",
        "http_status": f"case when {dropped} then 404 else 200 end",
    }
    known |= {"media_offset": "i % 10000 * 40000", "media_bytes": "(20000 + i % 9999)::bigint"} | dict(extra)
    columns = ", ".join(f"{value} as {name}" for name, value in known.items())
    host = f"'d' || (place * place // {DOMAINS}) || '.example.org'"  # in whole numbers, as in `domain_of`
    places = f"select i, i * {_MULTIPLIER} % {DOMAINS} as place from range({start}, {end}) t(i)"
    return f"select {columns} from (select i, {host} as host from ({places}))"


def _sample_query(start: int, end: int, number: int) -> str:
    parents = ", ".join(f"md5((i + {offset})::varchar)" for offset in range(PICTURES_PER_SAMPLE))
    return (
        f"select md5('built' || i) as sample_id, 'kept' as decision, null::varchar as reason, '{number:05d}' as shard, "
        f"md5('built' || i) as key, (i - {start}) // {PICTURES_PER_SAMPLE} as position, 'selective' as kind, "
        "'selective_caption' as builder, '1' as builder_version, 'web' as source, 'unknown' as licence, "
        f"{PICTURES_PER_SAMPLE}::integer as images, 120::integer as text_tokens, 60::integer as trained_tokens, "
        f"[{parents}] as parents from range({start}, {end}, {PICTURES_PER_SAMPLE}) t(i)"
    )
