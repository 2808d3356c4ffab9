"""A new version of a finished artifact, in which rows that failed for a transient reason had a second chance.

The new version is made beside the old one, from its `_state`: journals without the rows to try again, and what
img2dataset said about the others. Stored bytes of rows that stay are copied out of the old tars. When it is complete,
the new folder takes the old one's place by two renames; a kill between them is repaired by the next command.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.curate.download import TRANSIENT
from owl3.curate.overview import Verdict
from owl3.curate.publish import ShardFiles
from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, Manifest
from owl3.samples import url_id
from owl3.shards import write_table

_PLACELESS = {"offset": 0, "num_bytes": 0, "made_offset": 0, "made_bytes": 0}
"""Bodies of the old version are in its tars, if they were kept at all."""


def previous_version(folder: Path) -> Path:
    """Where the next version of `folder` is made; repairs a change of versions that was killed half-way."""
    next_version, old = folder.with_name(f".{folder.name}.next"), folder.with_name(f".{folder.name}.old")
    if not folder.exists() and (next_version / MANIFEST_NAME).is_file():
        next_version.rename(folder)
    if (folder / MANIFEST_NAME).is_file():
        shutil.rmtree(old, ignore_errors=True)
    return next_version


def has_transient_drops(manifest: Manifest) -> bool:
    """Is there anything that another attempt may cure?"""
    return bool(TRANSIENT & manifest.counts.dropped.keys())


def start_from(state: Path, files: ShardFiles, media: str) -> None:
    """Set a shard's working files up so that only its transient failures are fetched.

    Raises:
        InputError: the old version has no state, so it can't be retried.
    """
    if files.engine_rows.is_file():
        return  # set up already, by a run that was killed
    journal, engine_rows = state / files.shard / "journal.jsonl", state / files.shard / "engine_rows.parquet"
    if not journal.is_file() or not engine_rows.is_file():
        raise InputError(f"{state}: is missing or not whole, so nothing can be retried; curate under another name")
    engine = {row["index"]: row["status"] for row in pq.read_table(engine_rows).to_pylist()}
    entries = {entry["url_id"]: entry for entry in map(json.loads, journal.read_text("utf-8").splitlines())}
    table = pq.read_table(files.fetch)
    wanted, again = [], set()
    for place, row in enumerate(table.to_pylist()):
        key = url_id(row["url"])
        reason = entries[key]["reason"] if key in entries else "engine_error"
        unfinished = media == "image" and entries.get(key, {}).get("size") is None
        lost = unfinished and engine.get(row["index"]) not in ("success", "failed_to_resize")
        if reason in TRANSIENT or (reason is None and lost):
            wanted.append(place)
            again.add(key)
    files.spool.mkdir(parents=True, exist_ok=True)
    kept = [entry | _PLACELESS for key, entry in entries.items() if key not in again]
    lines = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in kept)
    (files.spool / "journal.jsonl").write_text(lines, encoding="utf-8")
    write_table(files.fetch, table.take(pa.array(wanted, pa.int64())))
    files.engine_rows.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(engine_rows, files.engine_rows)  # last: it says that all of this is done


def stay_dropped(previous: Path, shards: Sequence[str], ratings: pa.Table, verdicts: dict[str, Verdict]) -> None:
    """Add verdicts for rows that the old version dropped and that nothing would drop now: their bytes are gone.

    It is rare: a caption's repeats, say, can become fewer when one of them turns out to be a duplicate of a new row.
    """
    alive = set(ratings.filter(pc.is_null(ratings.column("reason"))).column("sample_id").to_pylist())
    columns = ["sample_id", "reason", "duplicate_of", "benchmark"]
    for shard in shards:
        for row in pq.read_table(previous / f"{shard}.parquet", columns=columns).to_pylist():
            verdict = verdicts.get(row["sample_id"])
            is_dropped = row["sample_id"] not in alive or (verdict is not None and verdict.reason is not None)
            if row["reason"] is not None and row["reason"] not in TRANSIENT and not is_dropped:
                verdicts[row["sample_id"]] = Verdict(row["reason"], row["duplicate_of"], row["benchmark"])


def take_place(next_version: Path, folder: Path) -> None:
    """Let a complete new version take the place of the old one."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    folder.rename(old)
    next_version.rename(folder)
    shutil.rmtree(old)
