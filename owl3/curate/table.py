"""The shard table: one row per row of the source, kept or dropped, in source order.

00000.parquet            everything that depends on the responses alone; part of the digest
00000_evidence.parquet   when, how long, how often, from which address; differs from run to run
00000_stats.json         img2dataset's counts, and ours
"""

from typing import Any

import pyarrow as pa

SHARD_TABLE = pa.schema(
    [
        ("sample_id", pa.string()),
        ("url", pa.string()),
        ("canonical_url", pa.string()),
        ("domain", pa.string()),
        ("caption", pa.string()),
        ("language", pa.string()),
        ("licence", pa.string()),
        ("source", pa.string()),
        ("decision", pa.string()),  # kept | dropped
        ("reason", pa.string()),  # null when kept
        ("stage", pa.string()),  # fetch | rights | decide | dedup | decontaminate | takedown; null when kept
        ("duplicate_of", pa.string()),  # sample_id of the row kept instead
        ("benchmark", pa.string()),  # evaluation set in which it stands
        ("shard", pa.string()),
        ("key", pa.string()),
        ("position", pa.int64()),  # in the source
        ("status", pa.string()),  # img2dataset's: success | failed_to_download | failed_to_resize
        ("error_message", pa.string()),
        ("http_status", pa.int32()),
        ("final_url", pa.string()),
        ("media_sha256", pa.string()),  # of the bytes as fetched
        ("sha256", pa.string()),  # of the bytes as stored
        ("phash", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("format", pa.string()),  # as fetched
        ("extension", pa.string()),  # of the stored member
        ("bytes", pa.int64()),  # as stored
        ("exif", pa.string()),
        ("duration_s", pa.float64()),
        ("fps", pa.float64()),
        ("frames", pa.int32()),
        ("start_s", pa.float64()),  # where the clip was cut out of its original
        ("end_s", pa.float64()),
        ("grey_std", pa.float32()),
        ("sharpness", pa.float32()),
        ("entropy", pa.float32()),
        ("clip_similarity", pa.float64()),  # of picture and caption, where the recipe has a clip section
        ("rights_signal", pa.string()),
        ("rights_value", pa.string()),
        ("user_agent", pa.string()),
        ("json_offset", pa.int64()),
        ("json_bytes", pa.int64()),
        ("media_offset", pa.int64()),
        ("media_bytes", pa.int64()),
    ]
)

EVIDENCE_TABLE = pa.schema(
    [
        ("sample_id", pa.string()),
        ("url", pa.string()),
        ("signal", pa.string()),
        ("value", pa.string()),
        ("time", pa.string()),
        ("user_agent", pa.string()),
        ("seconds", pa.float64()),
        ("attempts", pa.int32()),
        ("address", pa.string()),
        ("message", pa.string()),
    ]
)

_PLACES = {"json_offset", "json_bytes", "media_offset", "media_bytes"}

STAGE_OF_REASON = {
    "robots_disallowed": "rights",
    "robots_unavailable": "rights",
    "opt_out_header": "rights",
    "tdm_reserved": "rights",
    "aipref_disallowed": "rights",
    "licence_not_allowed": "rights",
    "blocklisted": "takedown",
    "tombstoned": "takedown",
    "contaminated": "decontaminate",
    "duplicate_exact": "dedup",
    "duplicate_near": "dedup",
    "duplicate_embedding": "dedup",
    "placeholder_image": "dedup",
}
"""Where a reason arises when it does not say so itself; everything else is `fetch` or `decide`."""


def member_json(row: dict[str, Any]) -> dict[str, Any]:
    """What KEY.json holds: the row without what is empty and without its place in the tar."""
    return {name: value for name, value in row.items() if value is not None and name not in _PLACES}


def with_source_columns(table: pa.Table) -> pa.Schema:
    """The shard table's schema, with the corpus's own columns (`src_*`) of a URL table appended."""
    extra = [field for field in table.schema if field.name.startswith("src_")]
    return pa.schema([*SHARD_TABLE, *extra])
