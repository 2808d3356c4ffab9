"""Turn a corpus's metadata into a URL table: clean rows in, dirty rows counted.

    sources/NAME/urls-00000.parquet   sample_id, url, canonical_url, domain, caption, licence, language, position, src_*
    sources/NAME/dropped.parquet      row (number in the dump), reason, url, caption

A row is dropped for a reason of the ledger's list and never crashes the preparation. What was retracted from the
workspace does not come back by another dump: of such a row its number is written down, and nothing else. `position`
numbers the kept rows of the whole source; shards, samples and plans follow its order.
"""

import functools
import itertools
import logging
import math
import operator
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, urlsplit

import pyarrow as pa
from filelock import FileLock
from pydantic import Field, model_validator

from owl3.config import Config
from owl3.curate.sources.coco import read_coco
from owl3.curate.sources.columns import agree_on_types, column_of, encodable
from owl3.curate.sources.corpus import find_corpus, merged
from owl3.curate.sources.folders import read_llava, read_msvd
from owl3.curate.sources.hub import resolve_revision, stream_hub
from owl3.curate.sources.tables import digest_files, read_table
from owl3.curate.sources.urltables import source_folder, url_tables
from owl3.errors import InputError
from owl3.ledger import Retracted, read_retracted
from owl3.manifest import Counts, Manifest, find_current, lock_path, now, write_manifest
from owl3.progress import SILENT, Progress
from owl3.samples import canonical_url, short_hash
from owl3.secrecy import hide_in_urls, is_signed, without_user
from owl3.shards import write_table

logger = logging.getLogger(__name__)

_BASE_FIELDS = [
    ("sample_id", pa.string()),
    ("url", pa.string()),
    ("canonical_url", pa.string()),
    ("domain", pa.string()),
    ("caption", pa.string()),
    ("licence", pa.string()),
    ("language", pa.string()),
    ("start_s", pa.float64()),
    ("end_s", pa.float64()),
    ("expected_sha256", pa.string()),
    ("boxes", pa.list_(pa.list_(pa.float64()))),
    ("position", pa.int64()),
]
_DROPPED = pa.schema([("row", pa.int64()), ("reason", pa.string()), ("url", pa.string()), ("caption", pa.string())])
_MAX_TEXT = 100_000
_SIDES = ("left", "top", "right", "bottom")


class ColumnMap(Config):
    """Which columns of the dump hold what.

    `URL|url` takes the first that is there (releases of one corpus differ); columns by number (`"0"`) fit tables
    without a header.
    """

    url: str = "url"
    caption: str = "caption"
    licence: str | None = None
    language: str | None = None
    start_s: str | None = None
    end_s: str | None = None
    sha256: str | None = None
    """Hash of the media as the corpus recorded them; other bytes are dropped as `hash_mismatch`."""
    boxes: str | None = None
    """Faces to blur: lists of [left, top, right, bottom] as parts of width and height, before EXIF rotation."""
    extra: tuple[str, ...] = ()
    """Further columns to carry along, as `src_NAME`; `*` takes all."""


class SourceConfig(Config):
    """One corpus's metadata, and how to read it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    media: Literal["image", "video"] = "image"
    corpus: str | None = None
    """A corpus of the catalogue (`owl3 sources list`): what is not given here is taken from there."""
    layout: Literal["table", "coco", "llava", "msvd"] = "table"
    files: tuple[str, ...] = ()
    """Paths or glob patterns, absolute or relative to the workspace: tables (parquet, csv, tsv, json, jsonl; also .gz)
    or the json of a COCO (captions and, beside it, instances) or LLaVA folder."""
    hub: str | None = None
    """Instead of files: a dataset of the hub (or a local folder in its layout), read as a stream."""
    hub_revision: str = "main"
    hub_split: str = "train"
    columns: ColumnMap = ColumnMap()
    header: bool = True
    """False for csv and tsv without a header line; columns are then named "0", "1" …"""
    delimiter: str | None = None
    """Of csv and tsv, where it is not the usual one."""
    rows_at: str | None = None
    """json that is one object: the key under which its rows lie."""
    base_url: str | None = None
    """Where the media of a folder are served; with it the url column holds names, not URLs."""
    url_template: str = "{base_url}{name}"
    """With base_url: how a row's URL is made of the name in its url column."""
    captions: Literal["first", "each"] = "first"
    """Where a medium has several captions: one row per medium, or one per caption."""
    blur_categories: tuple[str, ...] = Field(default=(), exclude_if=operator.not_)
    """With COCO's instances: objects that are blurred by their boxes, as in `[person]`."""
    licence: str = "unknown"
    """Licence of the media where the table has none."""
    metadata_licence: str = "unknown"
    language: str | None = None
    citation: str = ""
    homepage: str = ""
    max_rows: int | None = Field(default=None, gt=0)
    rows_per_file: int = Field(default=100_000, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _take_from_catalogue(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("corpus"), str):
            return merged(find_corpus(data["corpus"]).source, data)
        return data

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if bool(self.files) == bool(self.hub):
            raise ValueError("give either files or hub: where the metadata lies")
        if self.base_url is not None and not self.base_url.endswith("/"):
            raise ValueError("base_url must end with /")
        if self.layout != "table" and self.base_url is None:
            raise ValueError(f"layout {self.layout}: base_url must say where the media are served")
        if self.blur_categories and self.layout != "coco":
            raise ValueError("blur_categories has no effect but with layout: coco; boxes of a table: columns.boxes")
        return self


def prepare(config: SourceConfig, workspace: Path, progress: Progress = SILENT) -> Manifest:
    """Make `sources/NAME`, or return its manifest when it is done already.

    Raises:
        InputError: a file is missing or unreadable, or has none of the mapped columns.
    """
    folder = source_folder(workspace, config.name)
    files = find_files(config, workspace)
    recipe = config.model_dump(mode="json") | {"files": digest_files(files)}
    if config.hub:
        recipe["hub_revision"] = resolve_revision(config.hub, config.hub_revision)
    current = find_current(folder, recipe, ())
    if current is not None:
        return current
    with FileLock(lock_path(folder)):
        started = now()
        for path in url_tables(folder):
            path.unlink()  # of a run that was killed, perhaps over more rows than this one
        progress.start(f"prepare {config.name}", None)
        table = _Table(config, folder, read_retracted(workspace))
        for row in itertools.islice(_read(config, files, recipe["hub_revision"]), config.max_rows):
            table.add(row)
            progress.advance()
        counts = table.close()
        progress.finish(f"{counts.kept} of {counts.seen} rows")
        stats = {"media": config.media, "shards": table.num_files}
        return write_manifest(
            folder, kind="source", name=config.name, counts=counts, recipe=recipe, stats=stats, started=started
        )


def find_files(config: SourceConfig, workspace: Path) -> list[Path]:
    """Resolve `files` to existing paths, sorted within each pattern."""
    found: list[Path] = []
    for pattern in config.files:
        path = Path(pattern)
        if path.is_absolute():
            matches = [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        else:
            matches = sorted(workspace.glob(pattern))
        if not matches:
            hint = "" if path.is_absolute() else f" (relative ones start at {workspace})"
            raise InputError(f"source {config.name}: no file matches {pattern!r}{hint}")
        found += matches
    return found


def _read(config: SourceConfig, files: list[Path], revision: str) -> Iterator[Mapping[str, Any]]:
    """Rows with the names of our own columns; values as the dump has them."""
    if config.layout == "coco":
        yield from read_coco(files, config.base_url or "", config.captions, config.blur_categories)
    elif config.layout == "llava":
        yield from read_llava(files, config.base_url or "")
    elif config.layout == "msvd":
        yield from read_msvd(files, config.base_url or "", config.captions)
    elif config.hub:
        yield from _mapped(config, stream_hub(config.hub, config.hub_split, revision), config.hub)
    else:
        for file in files:
            rows = read_table(file, header=config.header, delimiter=config.delimiter, rows_at=config.rows_at)
            yield from _mapped(config, rows, str(file))


def _mapped(config: SourceConfig, rows: Iterable[dict[str, Any]], where: str) -> Iterator[Mapping[str, Any]]:
    """Rename a table's columns to ours, and make rows of several captions."""
    wanted = config.columns.model_dump(exclude={"extra"}, exclude_none=True)
    named: dict[str, str] = {}
    for row in rows:
        if any(theirs not in row for theirs in named.values()) or not named:
            named = {ours: _present(row, theirs, where) for ours, theirs in wanted.items()}
        used = set(named.values())
        extra = [name for name in row if name not in used] if "*" in config.columns.extra else config.columns.extra
        known = {ours: row[theirs] for ours, theirs in named.items()}
        known |= {f"src_{encodable(name)}": row.get(name) for name in extra}
        if config.base_url is not None and isinstance(known["url"], str) and known["url"]:
            name = quote(known["url"], safe="/")
            known["url"] = config.url_template.format(base_url=config.base_url, name=name)
        for caption in _captions(known["caption"], config.captions):
            yield known | {"caption": caption}


def _present(row: Mapping[str, Any], alternatives: str, where: str) -> str:
    """The first of `A|B|C` that is a column of the row."""
    found = next((name for name in alternatives.split("|") if name in row), None)
    if found is None:
        have = ", ".join(list(row)[:20])
        raise InputError(f"{where}: no column {alternatives!r}; map it with columns.* (columns: {have})")
    return found


def _captions(value: Any, captions: Literal["first", "each"]) -> list[Any]:
    """Captions of one cell: a text, a list of texts, or a LLaVA conversation (whose first answer is the caption)."""
    if not isinstance(value, list):
        return [value]
    if value and all(isinstance(entry, dict) for entry in value):
        value = [turn.get("value") for turn in value if turn.get("from") == "gpt"][:1]
    return (value if captions == "each" else value[:1]) or [None]


class _Table:
    """Checks rows and writes them as URL tables of bounded size."""

    def __init__(self, config: SourceConfig, folder: Path, retracted: Retracted) -> None:
        self._config = config
        self._folder = folder
        self._retracted = retracted
        self._rows: list[dict[str, Any]] = []
        self._dropped: list[dict[str, Any]] = []
        self._seen_ids: set[bytes] = set()
        self._seen = 0
        self._kept = 0
        self.num_files = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Take one row of the dump: keep it, or count why not."""
        number, self._seen = self._seen, self._seen + 1
        checked = clean_row(row, self._config)
        if not isinstance(checked, str) and self._retracted.has(checked["sample_id"], checked["canonical_url"]):
            self._dropped.append({"row": number, "reason": "tombstoned"})  # nor is it written down who
            return
        if not isinstance(checked, str):
            identity = bytes.fromhex(checked["sample_id"])
            if identity in self._seen_ids:
                checked = "duplicate_row"
            else:
                self._seen_ids.add(identity)
        if isinstance(checked, str):
            text = {name: encodable(hide_in_urls(str(row.get(name) or ""))[:1000]) for name in ("url", "caption")}
            self._dropped.append({"row": number, "reason": checked} | text)
            return
        self._rows.append(checked | {"position": self._kept})
        self._kept += 1
        if len(self._rows) >= self._config.rows_per_file:
            self._flush()

    def close(self) -> Counts:
        """Write what is left and return the counts."""
        if self._rows or not self.num_files:
            self._flush()
        agree_on_types([self._folder / f"urls-{number:05d}.parquet" for number in range(self.num_files)])
        write_table(self._folder / "dropped.parquet", pa.Table.from_pylist(self._dropped, schema=_DROPPED))
        reasons = Counter(row["reason"] for row in self._dropped)
        return Counts(seen=self._seen, kept=self._kept, dropped=dict(sorted(reasons.items())))

    def _flush(self) -> None:
        extra = list(dict.fromkeys(name for row in self._rows for name in row if name.startswith("src_")))
        rows = [{name: row.get(name) for name, _ in _BASE_FIELDS} for row in self._rows]
        base = pa.Table.from_pylist(rows, schema=pa.schema(_BASE_FIELDS))
        for name in extra:
            base = base.append_column(name, column_of([row.get(name) for row in self._rows]))
        write_table(self._folder / f"urls-{self.num_files:05d}.parquet", base)
        self.num_files += 1
        self._rows = []


def clean_row(row: Mapping[str, Any], config: SourceConfig) -> dict[str, Any] | str:
    """Check one row; return it in our columns, or the reason why it is dropped."""
    url, caption = row.get("url"), row.get("caption")
    if caption is None or (isinstance(caption, float) and math.isnan(caption)):
        caption = ""
    if url is None or not isinstance(url, str) or not isinstance(caption, str):
        return "bad_url" if url is None else "wrong_type"
    try:
        canonical = canonical_url(url)
        parts = urlsplit(canonical)
    except ValueError:
        return "bad_url"
    if parts.scheme not in ("http", "https") or not parts.hostname or len(url) > _MAX_TEXT:
        return "bad_url"
    if is_signed(canonical):
        return "signed_url"
    if not caption.strip():
        return "missing_caption"
    if len(caption) > _MAX_TEXT:
        return "caption_too_long"
    try:
        boxes = _boxes(row.get("boxes"))
    except (TypeError, ValueError):
        return "wrong_type"
    caption = unicodedata.normalize("NFC", " ".join(caption.split()))
    if any(unicodedata.category(character) in ("Cc", "Cs", "Co") for character in caption):
        return "control_characters"
    cleaned: dict[str, Any] = {
        "sample_id": short_hash("url", canonical, caption),
        "url": without_user(url),  # which is never sent, and would be written down
        "canonical_url": canonical,
        "domain": parts.hostname,
        "caption": caption,
        "licence": _text(row.get("licence")) or config.licence,
        "language": _text(row.get("language")) or config.language,
        "start_s": _seconds(row.get("start_s")),
        "end_s": _seconds(row.get("end_s")),
        "expected_sha256": _text(row.get("sha256")).lower() or None,
        "boxes": boxes,
    }
    return cleaned | {name: value for name, value in row.items() if name.startswith("src_")}


def _text(value: Any) -> str:
    return encodable(value.strip()) if isinstance(value, str) else ""


def _boxes(value: Any) -> list[list[float]] | None:
    """Read boxes of four numbers each; raises TypeError or ValueError where they can't be read."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    boxes = [[float(part) for part in box] for box in value]
    if not all(len(box) == len(_SIDES) and all(map(math.isfinite, box)) for box in boxes):
        raise ValueError("a box is four numbers")
    return boxes or None


def _seconds(value: Any) -> float | None:
    """Read seconds, or a clock time as `00:01:02.500`; None for what is neither."""
    parts = value.split(":") if isinstance(value, str) else [value]
    try:
        seconds = functools.reduce(lambda total, part: total * 60 + float(part), parts, 0.0)
    except (TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) else None
