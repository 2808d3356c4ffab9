"""The ledger: who was kept, who was dropped and why, as Parquet beside the shards, read in place by DuckDB.

`REASONS` is the closed list of drop reasons: a reason that is not here is a bug, so that two teams' counts compare.
"""

import os
import re
import secrets
import tempfile
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.errors import InputError
from owl3.samples import canonical_id
from owl3.storage import read_json

if TYPE_CHECKING:
    import duckdb

REASONS: dict[str, str] = {
    # source: rows of a metadata dump
    "bad_url": "not an http(s) URL",
    "signed_url": "signed for somebody (S3, Google, Azure …): a credential, which must not be written down",
    "missing_caption": "no caption, or one without text",
    "wrong_type": "a value of another type than its column's",
    "duplicate_row": "the same (URL, caption) stood in the table before",
    "control_characters": "caption holds control characters",
    # fetch
    "not_found": "404 or 410",
    "forbidden": "401, 403 or 451",
    "server_error": "5xx after all retries",
    "rate_limited": "429 after all retries",
    "engine_error": "fetched, but the fetch engine lost it",
    "http_error": "another status that is not success",
    "timeout": "the deadline of the URL passed",
    "too_slow": "came in under the minimum rate",
    "too_large": "more bytes than the cap",
    "wrong_length": "body shorter than its Content-Length",
    "dns_error": "the host name does not resolve",
    "connection_error": "refused, reset or broken off",
    "tls_error": "certificate not valid",
    "too_many_redirects": "more redirects than allowed",
    "private_address": "an address that is not public, at any hop",
    "dead_host": "the circuit breaker of its host was open",
    "empty_body": "success without content",
    # rights
    "robots_disallowed": "robots.txt forbids it",
    "robots_unavailable": "robots.txt could not be read, and policy says refuse",
    "opt_out_header": "X-Robots-Tag forbids it",
    "tdm_reserved": "text and data mining is reserved",
    "aipref_disallowed": "Content-Usage forbids training",
    # media
    "not_an_image": "bytes are no picture of a known format",
    "not_a_video": "no decodable video stream",
    "truncated_image": "the picture ends too early",
    "undecodable": "the decoder gave up",
    "decompression_bomb": "more pixels than the cap, seen before decoding",
    "animated_image": "more than one picture in the file",
    "wrong_extension": "the file is of another type than its name says",
    "clip_too_long": "longer than the cap",
    "clip_too_short": "shorter than the minimum, or fewer frames than asked",
    "decode_timeout": "decoding did not end in time",
    "resize_failed": "the fetch engine could not resize it",
    "hash_mismatch": "bytes are not the ones the corpus recorded",
    # decide
    "image_too_small": "a side under the minimum",
    "image_too_large": "a side or the area over the maximum",
    "aspect_ratio": "too long and thin",
    "format_not_allowed": "a picture format that the recipe leaves out",
    "blank_image": "one colour, or nearly",
    "blurred_image": "sharpness under the minimum",
    "caption_too_short": "under the minimum length",
    "caption_too_long": "over the maximum length",
    "caption_language": "a language that the recipe leaves out",
    "caption_repetitive": "the same characters or words again and again",
    "caption_boilerplate": "file name, 'image not found' and their like",
    "caption_repeated": "the same caption more often than the cap",
    "personal_data": "e-mail address or phone number",
    "low_clip_similarity": "picture and caption do not match",
    "low_aesthetic": "aesthetic score under the minimum",
    "unsafe": "safety score over the maximum",
    "watermark": "watermark score over the maximum",
    "licence_not_allowed": "a licence that the recipe leaves out",
    "content_not_allowed": "shows something that the recipe leaves out",
    # dedup, takedown
    "duplicate_exact": "the same bytes are kept under another id",
    "duplicate_near": "nearly the same picture is kept under another id",
    "duplicate_embedding": "nearly the same embedding is kept under another id",
    "placeholder_image": "the same bytes under many URLs",
    "blocklisted": "on a blocklist or removal list",
    "contaminated": "stands in an evaluation set",
    "tombstoned": "retracted",
    # build
    "missing_media": "refers to a medium that is not there",
    "media_mismatch": "placeholders and media differ in number",
    "bad_conversation": "turns are empty or in the wrong order",
    "empty_text": "no text left after cleaning",
    "unsafe_path": "absolute path or '..'",
    "too_many_images": "more images than the budget",
    "too_many_tokens": "more text tokens than the budget",
    "too_few_frames": "fewer frames than asked",
    "too_few_images": "fewer usable images than the builder's minimum",
    "no_parents_left": "every parent reached its cap",
    "unknown_language": "no template in this language",
    "not_selected": "not this builder's: its count was reached, or the row is of another kind",
    # plan and load
    "over_row_length": "longer than a row",
    "over_row_images": "more images than a row may hold",
    "over_quota": "beyond the mixture's share",
    "over_cap": "beyond the dataset's cap",
    "held_out": "kept for measuring validation loss",
    "damaged_shard": "its shard does not match its index",
}
"""Every reason for leaving a sample out, and what it means."""


def check_reason(reason: str) -> str:
    """Return `reason` when it is on the closed list; a reason that is not is a bug of ours."""
    assert reason in REASONS, f"drop reason {reason!r} is not on the closed list in owl3/ledger.py"
    return reason


TOMBSTONES = pa.schema(
    [
        ("sample_id", pa.string()),
        ("matched_by", pa.string()),  # url | domain | licence | sha256 | image | sample_id
        ("matched_value", pa.string()),  # as it was asked for; its hash, once a purge has cleared the row
        ("reason", pa.string()),
        ("time", pa.string()),
        ("url_id", pa.string()),  # what a purge leaves of the row: its URL's name, by which the URL is told again,
        ("media_sha256", pa.string()),  # and the hash of the picture, where that or its URL was asked for
    ]
)


def tombstones_path(workspace: Path) -> Path:
    """Where the ids of retracted samples stand."""
    return workspace / "tombstones.parquet"


@dataclass(frozen=True, slots=True)
class Retracted:
    """What must not come back: sample ids and, of rows that a purge cleared, URLs and pictures by their hashes."""

    ids: frozenset[str] = frozenset()
    url_ids: frozenset[str] = frozenset()
    media_sha256: frozenset[str] = frozenset()

    def has(self, sample_id: str, canonical_url: str | None) -> bool:
        """Whether a row of a source is retracted."""
        if sample_id in self.ids:
            return True
        return bool(self.url_ids) and canonical_url is not None and canonical_id(canonical_url) in self.url_ids


def read_tombstones(workspace: Path) -> pa.Table:
    """All tombstones of a workspace; an empty table when nothing was ever retracted."""
    path = tombstones_path(workspace)
    return pq.read_table(path, schema=TOMBSTONES) if path.is_file() else TOMBSTONES.empty_table()


def read_retracted(workspace: Path) -> Retracted:
    """What was retracted from a workspace. Who asked for one sample asked for no other one of its URL."""
    rows = read_tombstones(workspace)
    wider = rows.filter(pc.not_equal(rows["matched_by"], "sample_id"))
    columns = rows["sample_id"], wider["url_id"], wider["media_sha256"]
    return Retracted(*(frozenset(column.drop_null().to_pylist()) for column in columns))


MEMORY_LIMIT = "3GB"
"""What a query may hold before it spills to disk: an auditor's laptop has 4 GB."""

VIEWS = {
    "source_rows": "sources/*/urls-*.parquet",
    "shard_rows": "shards/*/[0-9][0-9][0-9][0-9][0-9].parquet",
    "evidence": "shards/*/[0-9][0-9][0-9][0-9][0-9]_evidence.parquet",
    "sample_rows": "samples/*/[0-9][0-9][0-9][0-9][0-9].parquet",
    "tombstones": "tombstones.parquet",
}
"""Views of a workspace, and the tables behind each."""


def open_duckdb() -> "duckdb.DuckDBPyConnection":
    """Open an in-memory DuckDB that keeps to `MEMORY_LIMIT` and spills into the system's folder for such things."""
    import duckdb  # a seventh of what a worker's imports take; most only want to know a reason

    connection = duckdb.connect(":memory:")
    # A name that nobody else has or can guess: containers that share the folder have the same process ids.
    spill = f"{tempfile.gettempdir()}/owl3-duckdb-{secrets.token_hex(8)}".replace("'", "''")
    connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
    connection.execute(f"set temp_directory = '{spill}'")  # made when something spills, removed at the end
    connection.execute("set parquet_metadata_cache = true")
    return connection


def connect(
    workspace: Path | str, views: Collection[str] = tuple(VIEWS), *, whole: bool = True
) -> "duckdb.DuckDBPyConnection":
    """Open an in-memory DuckDB with one view per kind of table of the workspace, read in place.

    Views, where such tables exist: `shard_rows`, `sample_rows`, `source_rows`, `evidence`, `tombstones`; each with the
    artifact's name in `artifact` and the file in `filename`.

    Args:
        workspace: A folder, or a URL that fsspec knows (`s3://bucket/workspace`): of tables there, only the columns and
            row groups that a question needs travel. Credentials come from the environment.
        views: Those that are needed: each opens every file behind it once.
        whole: Refuse a workspace of which a finished artifact lacks a table; whoever looks for such faults does not.

    Raises:
        InputError: when the workspace does not exist, or a finished artifact lacks a table.
    """
    place = _Place(workspace)
    if not place.exists():
        raise InputError(f"{workspace}: no such workspace; give one with --workspace or OWL3_WORKSPACE")
    if whole and place.files is None:
        check_tables(Path(workspace), {VIEWS[view].split("/")[0] for view in views if "/" in VIEWS[view]})
    connection = open_duckdb()
    if place.files is not None:
        connection.register_filesystem(place.files)
    for view in views:
        if place.holds(VIEWS[view]):
            tables = f"{place.root}/{VIEWS[view]}".replace("'", "''")
            connection.execute(
                f"CREATE VIEW {view} AS SELECT *, regexp_extract(filename, '([^/]+)/[^/]+$', 1) AS artifact "
                f"FROM read_parquet('{tables}', filename = true, union_by_name = true)"
            )
    return connection


def check_tables(workspace: Path, folders: Iterable[str]) -> None:
    """Make sure that the ledger is whole: over a part of it, every question has an answer, and a wrong one.

    Args:
        folders: Which kinds of artifacts are asked about: `sources`, `shards`, `samples`.

    Raises:
        InputError: a finished artifact lacks a table, or has one of another size than its manifest says.
        OSError: this user may not list a folder.
    """
    for folder in sorted(folders):
        for artifact in sorted(_listed(workspace / folder)):
            manifest = artifact / "manifest.json"
            stated = read_json(manifest) if manifest.is_file() and _listed(artifact) else {}
            if not isinstance(stated, dict):
                raise InputError(f"{manifest}: not a manifest; bring it back, or make {folder}/{artifact.name} again")
            for entry in stated.get("files", ()):
                path = artifact / entry["path"]
                size = path.stat().st_size if path.is_file() else None
                if path.suffix == ".parquet" and size != entry["bytes"]:
                    found = "missing" if size is None else f"{size} bytes, where its manifest says {entry['bytes']}"
                    raise InputError(f"{path}: {found}; bring it back, or make {folder}/{artifact.name} again")


def _listed(folder: Path) -> list[Path]:
    """What lies in a folder; nothing where there is none. `glob` would take one that may not be read for empty."""
    return [folder / name for name in os.listdir(folder)] if folder.exists() else []  # noqa: PTH208


class _Place:
    """Where tables lie: a folder, or below a URL."""

    def __init__(self, workspace: Path | str) -> None:
        # A Path of "s3://bucket" holds "s3:/bucket".
        scheme = re.match(r"([a-z][a-z0-9+.-]+):/+(.+)", str(workspace))
        self.root = f"{scheme[1]}://{scheme[2].rstrip('/')}" if scheme else Path(workspace).as_posix()
        self.files: Any = None  # a file system of fsspec's
        if scheme:
            import fsspec

            self.files = fsspec.filesystem(scheme[1])

    def exists(self) -> bool:
        return Path(self.root).is_dir() if self.files is None else bool(self.files.exists(self.root))

    def holds(self, pattern: str) -> bool:
        if self.files is None:
            return next(Path(self.root).glob(pattern), None) is not None
        return bool(self.files.glob(f"{self.root}/{pattern}"))
