"""Files of an artifact written anew without what was retracted: tars without members, tables with drops for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from owl3.cards.erasure import DROPPED_KEEPS, EVIDENCE_KEEPS, SHARD_KEEPS, SOURCE_KEEPS, clear, says_anything
from owl3.errors import InputError
from owl3.shards import Member, ShardWriter, is_table, iter_samples, write_table

Row = dict[str, Any]

_CLEARED = ("caption", "key", "sha256", "bytes", "extension", "exif")
"""Of a curated row that keeps its metadata."""
_CLEARED_BUILT = ("key", "position", "media", "tiles")
_DROPPED = "dropped.parquet"
_DROP = {"decision": "dropped", "reason": "tombstoned"}


@dataclass
class Rewriter:
    """Writes the files anew that hold any of some samples.

    Attributes:
        clears: Whether rows lose all that was said of them, in sources and evidence too (`erasure.py`).
        texts: With that, what is cleared from rows of a source that never had an id.
    """

    workspace: Path
    ids: frozenset[str]
    clears: bool
    texts: frozenset[str] = frozenset()
    _offsets: dict[str, dict[str, int]] = field(default_factory=dict)

    @cached_property
    def _wanted(self) -> pa.Array:
        return pa.array(sorted(self.ids), pa.string())

    def changes(self, folder: Path, files: Collection[str], kind: str, *, moved: bool) -> set[str]:
        """Names of the files of an artifact that have to be written anew.

        Args:
            moved: Whether a parent was made anew, so that media may lie elsewhere in it.
        """
        if kind == "source":
            return {name for name in files if self._says(folder / name)} if self.clears else set()
        found = set[str]()
        for name in files:
            if is_table(name) and self._holds(folder / name, refers=moved):
                found |= {name, f"{Path(name).stem}.tar"}
            elif kind == "shards" and self.clears and self._says(folder / name):
                found.add(name)
        return found

    def _says(self, path: Path) -> bool:
        """Whether a table says anything of a sample that it should not say."""
        if path.name == _DROPPED:
            return bool(pc.any(self._in_dropped(pq.read_table(path))).as_py())
        keeps = _keeps(path.name)
        return keeps is not None and says_anything(path, self._wanted, keeps)

    def _in_dropped(self, table: pa.Table) -> pa.ChunkedArray:
        """Rows of a dump that never had an id, because they said the same again, or were no good."""
        texts = pa.array(sorted(self.texts), pa.string())
        return pc.or_(*(pc.is_in(table[name], texts) for name in ("url", "caption")))

    def _holds(self, table: Path, *, refers: bool) -> bool:
        """Whether a shard keeps a retracted sample, or (`refers`) media that lie in an artifact that was made anew."""
        own = f"{table.parent.relative_to(self.workspace).as_posix()}/{table.stem}.tar"
        columns = ["sample_id", "decision", *(["media"] if "media" in pq.read_schema(table).names else [])]
        rows = pq.read_table(table, columns=columns)
        kept = rows.filter(pc.equal(rows["decision"], "kept"))
        if pc.any(pc.is_in(kept["sample_id"], self._wanted)).as_py():
            return True
        if not refers or "media" not in columns:
            return False
        paths = pc.struct_field(pc.list_flatten(kept["media"]), "path")
        return bool(pc.any(pc.not_equal(paths, own)).as_py())

    def rewrite(self, folder: Path, fresh: Path, names: Collection[str], kind: str) -> int:
        """Write these files anew; returns how many samples lost their bytes.

        Raises:
            InputError: a tar holds a sample that its table does not know.
        """
        removed = 0
        for name in sorted(names):
            if is_table(name):
                removed += self._rewrite_shard(folder, fresh, Path(name).stem, kind, with_tar=_tar(name) in names)
            elif not name.endswith(".tar"):
                table = pq.read_table(folder / name)
                by_text = name == _DROPPED
                hit = self._in_dropped(table) if by_text else pc.is_in(table["sample_id"], self._wanted)
                keeps = DROPPED_KEEPS if by_text else _keeps(name)
                assert keeps is not None, name
                write_table(fresh / name, clear(table, hit, keeps))
        return removed

    def _rewrite_shard(self, folder: Path, fresh: Path, shard: str, kind: str, *, with_tar: bool) -> int:
        """Write a shard's table, and its tar where that held anything; returns how many samples left it."""
        table = pq.read_table(folder / f"{shard}.parquet")
        rows: list[Row] = table.to_pylist()
        if with_tar:
            self._rewrite_tar(folder / f"{shard}.tar", fresh / f"{shard}.tar", rows, kind)
        removed = 0
        for row in rows:
            if row["sample_id"] in self.ids:
                removed += row["decision"] == "kept"
                self._make_drop(row, kind)
        write_table(fresh / f"{shard}.parquet", pa.Table.from_pylist(rows, schema=table.schema))
        return removed

    def _rewrite_tar(self, old: Path, new: Path, rows: list[Row], kind: str) -> None:
        """Copy the samples that stay, and say in their rows where they lie now."""
        by_key = {row["key"]: row for row in rows if row["decision"] == "kept"}
        with ShardWriter(new) as tar:
            for key, members in iter_samples(old):
                if key not in by_key:
                    raise InputError(f"{old}: holds {key!r}, which its table does not keep; see `owl3 audit` first")
                row = by_key[key]
                if row["sample_id"] in self.ids:
                    continue
                position = tar.num_samples
                placed = tar.add(key, members)
                if kind == "samples":
                    self._move_built(row, placed)
                    row["position"] = position
                else:
                    _move_curated(row, placed)

    def _move_built(self, row: Row, placed: list[Member]) -> None:
        offsets = {member.name.partition(".")[2].partition(".")[0]: member.offset for member in placed}
        row["json_offset"] = offsets.pop("json")
        for number, medium in enumerate(row["media"] or []):
            if str(number) in offsets:
                medium["offset"] = offsets[str(number)]
            else:
                medium["offset"] = self._offset_now(medium["path"], medium["sha256"])

    def _offset_now(self, tar: str, sha256: str) -> int:
        """Where a medium that a sample refers to lies in its parent's tar, by the parent's present table."""
        if tar not in self._offsets:
            table = pq.read_table((self.workspace / tar).with_suffix(".parquet"))
            rows = [row for row in table.to_pylist() if row["decision"] == "kept"]
            own = {row["sha256"]: row["media_offset"] for row in rows if "media_offset" in row}
            inner = {medium["sha256"]: medium["offset"] for row in rows for medium in row.get("media") or []}
            self._offsets[tar] = own | inner
        if sha256 not in self._offsets[tar]:
            raise InputError(
                f"{tar}: does not hold the picture {sha256[:16]} that a built sample shows; see `owl3 audit`"
            )
        return self._offsets[tar][sha256]

    def _make_drop(self, row: Row, kind: str) -> None:
        """What was kept becomes a drop; what was dropped stays one, and says no more why, when it is cleared."""
        if kind == "shards" and self.clears:
            row |= {name: None for name in row if name not in SHARD_KEEPS}
        elif row["decision"] == "kept":
            cleared = [name for name in row if name.endswith(("_offset", "_bytes"))]
            cleared += _CLEARED_BUILT if kind == "samples" else _CLEARED
            row |= {name: None for name in cleared if name in row}
        else:
            return
        row |= _DROP | ({"stage": "takedown"} if kind == "shards" else {})


def _tar(table: str) -> str:
    return f"{Path(table).stem}.tar"


def _keeps(name: str) -> frozenset[str] | None:
    """Which columns of a table a takedown leaves; None for what is no table of rows."""
    if is_table(name):
        return SHARD_KEEPS
    if name.startswith("urls-") and name.endswith(".parquet"):
        return SOURCE_KEEPS
    return EVIDENCE_KEEPS if name.endswith("_evidence.parquet") else None


def _move_curated(row: Row, placed: list[Member]) -> None:
    for member in placed:
        extension = member.name.partition(".")[2]
        if extension == "json":
            row["json_offset"] = member.offset
        elif extension != "txt":
            row["media_offset"] = member.offset
