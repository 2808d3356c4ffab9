"""Builders whose parents are rows of files: `instruct` and `text`, and the base of video questions.

A row becomes one sample, or is refused with its reason. `finder.py` looks its media up.
"""

import base64
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from owl3.build.base import Builder, Prepared, as_counts
from owl3.build.config import InstructBuild, TextBuild, VideoBuild
from owl3.build.drafts import Draft, Part, Refused, Script, joined
from owl3.build.draw import InFileOrder, Order, Shuffled
from owl3.build.finder import Found, MediaFinder
from owl3.build.importers.layouts import LAYOUTS, import_row
from owl3.build.importers.record import MediaName, Record
from owl3.build.media_reader import Gone, MediaReader
from owl3.build.pool import Pool, write_pool, write_pool_index
from owl3.build.rows import BATCH_BYTES, BATCH_ROWS, RowTable, iter_json, write_rows
from owl3.config import canonical_json
from owl3.errors import ConfigError
from owl3.samples import Kind, short_hash
from owl3.storage import sha256_of

_ROWS = pa.schema([("file", pa.string()), ("number", pa.int64()), ("digest", pa.string()), ("json", pa.string())])

FileConfigT = TypeVar("FileConfigT", bound=InstructBuild | TextBuild | VideoBuild)


class RowBuilder(Builder[FileConfigT]):
    """One sample per row of the files."""

    def __init__(self, cfg: FileConfigT, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self.rows = RowTable(work / "rows.arrow")
        self._repeats: NDArray[np.bool_] = np.load(work / "repeats.npy", mmap_mode="r")
        pool = Pool(work / "pool.arrow") if (work / "pool.arrow").is_file() else None
        given = None if isinstance(cfg, TextBuild) else cfg.media_root
        roots = (given,) if isinstance(given, str) else given or ()
        self.finder = MediaFinder(pool, [workspace / root for root in roots])
        size = len(self.rows)
        self.order: Order = InFileOrder(size) if cfg.count == "all" else Shuffled(size, self.name, cfg.seed)

    @classmethod
    def prepare(cls, cfg: Any, workspace: Path, work: Path) -> Prepared:
        """Put all rows into one table, and make the shard sets' pictures findable."""
        if cfg.format != "auto" and cfg.format not in LAYOUTS:
            known = ", ".join(["auto", *LAYOUTS])
            raise ConfigError(f"build {cfg.name}: format: no layout {cfg.format!r}; there are: {known}")
        files = [workspace / path for path in cfg.files]
        write_rows(work / "rows.arrow", _ROWS, _row_tables(files))
        np.save(work / "repeats.npy", _repeats(RowTable(work / "rows.arrow")))
        parents: dict[str, Any] = {}
        if cfg.shards:
            parents = as_counts(write_pool(work / "pool.arrow", workspace, cfg.shards))
            write_pool_index(work / "pool.arrow")
        return Prepared(parents=parents, inputs={path.name: sha256_of(path) for path in files})

    def record(self, number: int) -> tuple[Record, dict[str, Any]]:
        """A row as its importer reads it, and what it is called.

        Raises:
            Refused: with the importer's reason.
        """
        row = self.rows[number]
        if self._repeats[number]:
            raise Refused("duplicate_row", f"{row['file']}, row {row['number']}: stood there before")
        meta = {"file": row["file"], "row": row["number"]}
        found = import_row(json.loads(row["json"], object_hook=_bytes_back), self.cfg.format)
        return found, {**meta, **found.meta}

    def row_digest(self, number: int) -> str:
        """Names a row by its content."""
        return str(self.rows[number]["digest"])

    def parents_of(self, rows: Sequence[int]) -> tuple[str, ...]:
        """A row has no id of its own: its digest stands in the ledger."""
        return tuple(self.row_digest(row) for row in rows)


class ConversationBuilder(RowBuilder[FileConfigT]):
    """Rows as they stand, with their media."""

    kind: Kind = "instruct"

    def __init__(self, cfg: FileConfigT, workspace: Path, work: Path) -> None:
        super().__init__(cfg, workspace, work)
        self._reader = MediaReader(workspace)

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        record, meta = self.record(rows[0])
        self.check(record)
        script, parents, sources, licences = Script(), list[str](), list[str](), list[str]()
        may_shrink = self.cfg.on_missing == "shrink" and not record.turns

        def placed(parts: Sequence[str | MediaName]) -> list[Part]:
            found: list[Part] = []
            for part in parts:
                if isinstance(part, str):
                    found.append(part)
                    continue
                try:
                    media, origin = self.media_of(part, meta)
                except Refused as refused:
                    if not may_shrink or refused.reason == "unsafe_path":
                        raise
                    meta["missing"] = meta.get("missing", 0) + 1
                    continue
                found += media
                parents.append(origin.parent)
                sources.append(origin.source)
                licences.append(origin.licence)
            return found

        for role, said in record.turns:
            script.turn(role, *placed(said))
        if not record.turns:
            script.document(*placed(record.document))
            if record.media and not script.media:
                raise Refused("too_few_images", "none of the page's pictures is left")
        source, licence = self.origin(meta)
        return Draft(
            kind=self.kind_of(script),
            script=script,
            parents=tuple(parents),
            source=joined([source, *filter(None, sources)]),
            licence=joined([licence, *filter(None, licences)]),
            extra=self.row_digest(rows[0]),
            meta=meta,
        )

    def check(self, record: Record) -> None:
        """Refuse rows that are another builder's."""
        clip = next((media for media in record.media if media.kind == "video"), None)
        if clip is not None:
            raise Refused("not_selected", f"{clip.name} is a clip; the video builder takes such rows")

    def media_of(self, media: MediaName, meta: dict[str, Any]) -> tuple[list[Part], Found]:
        """What stands where a medium is named: a picture, or the frames of a clip; and where it comes from."""
        found = self.finder.find(media)
        if self.cfg.on_missing == "shrink":
            try:
                self._reader.load(found.medium)
            except Gone as gone:
                raise Refused(gone.reason, gone.detail) from gone
        return [found.medium], found

    def origin(self, meta: dict[str, Any]) -> tuple[str, str]:
        """Source and licence of the words."""
        return self.cfg.source or Path(str(meta["file"])).stem, self.cfg.licence

    def kind_of(self, script: Script) -> Kind:
        """What the sample is called."""
        if not script.media:
            return "text"
        return self.kind if script.turns else "interleaved"


class InstructBuilder(ConversationBuilder[InstructBuild]):
    """`instruct`: conversations of an instruction file, and interleaved documents."""

    code_version = "1"


class TextBuilder(ConversationBuilder[TextBuild]):
    """`text`: conversations and documents without media."""

    code_version = "1"

    def check(self, record: Record) -> None:
        """Rows with media are another builder's."""
        if record.media:
            raise Refused("not_selected", "the row has media; the instruct builder takes such rows")


def _row_tables(files: Sequence[Path]) -> Iterator[pa.Table]:
    """The rows of all files, a batch at a time."""
    batch: list[dict[str, Any]] = []
    held_chars = 0
    for path in files:
        for number, row in enumerate(iter_json(path)):
            text = canonical_json(_as_json(row)).decode()
            batch.append({"file": path.name, "number": number, "digest": short_hash("row", text), "json": text})
            held_chars += len(text)
            if len(batch) == BATCH_ROWS or held_chars >= BATCH_BYTES:
                yield pa.Table.from_pylist(batch, schema=_ROWS)
                batch, held_chars = [], 0
    if batch:
        yield pa.Table.from_pylist(batch, schema=_ROWS)


def _repeats(rows: RowTable) -> NDArray[np.bool_]:
    """True for rows whose content stood before; holds 8 bytes of each digest in memory."""
    digests = [int(digest[:16], 16) for column in rows.column("digest") for digest in column.to_pylist()]
    _, first = np.unique(np.array(digests, dtype=np.uint64), return_index=True)
    repeats = np.ones(len(digests), dtype=bool)
    repeats[first] = False
    return repeats


def _as_json(value: Any) -> Any:
    """What JSON has no word for: bytes (pictures of Parquet rows) are spelt in base64, numbers that are none become
    null, halves of a surrogate pair go, and what is left (dates, decimals) is written out."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return value if value.isascii() else value.encode(errors="ignore").decode()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes):
        return {"$base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {_as_json(str(key)): _as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return str(value)


def _bytes_back(entry: dict[str, Any]) -> Any:
    return base64.b64decode(entry["$base64"]) if entry.keys() == {"$base64"} else entry
