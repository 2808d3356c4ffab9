"""An index over the ledger: which rows hold this URL, host, hash, id or parent, without reading every row.

    index/shards/NAME/    ids urls hashes domains domain_rows   .parquet, each sorted by its key
    index/samples/NAME/   ids children                          .parquet
                          manifest.json                         its one parent is the artifact, by digest

Keys are 128 bits: a sample id as it is, of everything else the first half of its sha256; so an index holds no URL and
no caption. A sorted file needs no other structure: DuckDB reads the row groups whose smallest and largest key enclose
what is asked for, and nothing else.

An index is derived from one artifact and from nothing else. It may be deleted at any time; one whose artifact was made
anew is not used (`current`), and `build_index` puts a new one in its place. It answers people's questions only: an
audit never asks it.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import duckdb
from filelock import FileLock

from owl3.cards.chain import FOLDERS, artifact_folder
from owl3.cards.tables import file_list, quoted
from owl3.ledger import open_duckdb
from owl3.manifest import MANIFEST_NAME, Counts, Manifest, read_manifest, write_manifest
from owl3.progress import SILENT, Progress
from owl3.shards import is_table
from owl3.storage import partial_path, read_json

logger = logging.getLogger(__name__)

FORMAT = 1
ROW_GROUP = 61_440
"""Rows per group: what a look-up of one key reads at least."""

INDEXED = ("shards", "samples")


def key_of(text: str) -> str:
    """SQL for the key of a text expression: an id is its own key."""
    return f"case when length({text}) = 32 then try_cast({text} as uuid) else {hash_key(text)} end"


def hash_key(text: str) -> str:
    """SQL for the key of a URL: half of its sha256."""
    return f"left(sha256({text}), 32)::uuid"


_SHARD = "right(filename, 13)[1:5]::uinteger as shard, file_row_number::uinteger as row"
_KEPT = "decision = 'kept' as kept"

_SHARDS: Mapping[str, str] = {
    "ids": f"select {key_of('sample_id')} as id, {_SHARD}, {_KEPT} from rows order by id, shard, row",
    "urls": f"select {hash_key('{url}')} as key, {_SHARD} from rows where {{url}} is not null order by key, shard, row",
    "hashes": f"select * from (select try_cast(left({{sha256}}, 32) as uuid) as key, {_SHARD} from rows union all "
    f"select try_cast(left({{media_sha256}}, 32) as uuid), {_SHARD} from rows "
    "where {media_sha256} is distinct from {sha256}) where key is not null order by key, shard, row",
    "domains": "select number, reversed, amount, kept from domains order by reversed",
    "domain_rows": f"select number, {key_of('sample_id')} as id, {_SHARD}, {_KEPT} "
    "from rows join domains on rows.{domain} = domains.domain order by number, shard, row",
}
_SAMPLES: Mapping[str, str] = {
    "ids": f"select {key_of('sample_id')} as id, {_SHARD}, {_KEPT}, position from rows order by id, shard, row",
    "children": f"select {key_of('parent')} as parent, id from (select unnest(parents) as parent, "
    f"{key_of('sample_id')} as id from rows) order by all",
}
_DOMAINS = (
    "create temp table domains as select row_number() over (order by reverse({domain}))::uinteger as number, "
    "{domain} as domain, reverse({domain}) as reversed, count(*) as amount, "
    "count(*) filter (where decision = 'kept') as kept from rows where {domain} is not null group by {domain}"
)
"""A reversed host begins like those of its subdomains, so that they lie side by side."""


@dataclass(frozen=True, slots=True)
class Index:
    """A current index of one artifact.

    Attributes:
        of_built: Whether any of the artifact's parents holds built samples, so that theirs may be such.
    """

    kind: str
    name: str
    artifact: Path
    folder: Path
    of_built: bool = True

    def table(self, name: str) -> str:
        """SQL that reads one of its tables."""
        return f"read_parquet({quoted(str(self.folder / f'{name}.parquet'))})"

    def has(self, name: str) -> bool:
        """Whether the artifact has what this table is about (a corpus without hosts has no `domains`)."""
        return (self.folder / f"{name}.parquet").is_file()

    def ledger_table(self, shard: int) -> Path:
        """The table of the artifact that a shard's rows stand in."""
        return self.artifact / f"{shard:05d}.parquet"


def stated_digest(folder: Path) -> str | None:
    """The digest that an artifact's manifest states, without reading the manifest's list of files; None without one."""
    path = folder / MANIFEST_NAME
    return str(read_json(path)["digest"]) if path.is_file() else None


def artifacts(workspace: Path, kind: str) -> list[Path]:
    """Folders of one kind that hold tables, finished or not, by name."""
    tables = (workspace / FOLDERS[kind]).glob("*/00000.parquet")
    return sorted(path.parent for path in tables if not path.parent.name.startswith("."))


def current(workspace: Path, kind: str, name: str) -> Index | None:
    """The index of an artifact, when there is one and it is about the artifact as it lies there."""
    folder = workspace / "index" / kind / name
    if not (folder / MANIFEST_NAME).is_file():
        return None
    artifact = artifact_folder(workspace, kind, name)
    about = read_json(folder / MANIFEST_NAME)
    whole = all(_size(folder / entry["path"]) == entry["bytes"] for entry in about["files"])
    if about["recipe"] != {"format": FORMAT} or about["parents"][0]["digest"] != stated_digest(artifact) or not whole:
        return None
    return Index(kind, name, artifact, folder, about["stats"].get("of_built", True))


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def build_indexes(workspace: Path, *, progress: Progress = SILENT) -> list[Manifest]:
    """Index every finished artifact that has no current index, and remove those of artifacts that are gone."""
    made = []
    for kind in INDEXED:
        for path in sorted((workspace / "index" / kind).glob(f"*/{MANIFEST_NAME}")):
            if current(workspace, kind, path.parent.name) is None:
                shutil.rmtree(path.parent)
        for artifact in artifacts(workspace, kind):
            if (artifact / MANIFEST_NAME).is_file():
                made.append(build_index(workspace, kind, artifact.name, progress=progress))
    return made


def build_index(workspace: Path, kind: str, name: str, *, progress: Progress = SILENT) -> Manifest:
    """Index one artifact, or do nothing when its index is current. Sorting spills to disk: no table is loaded whole.

    Raises:
        InputError: the artifact is not finished, or its manifest was edited.
    """
    folder = workspace / "index" / kind / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if current(workspace, kind, name) is not None:
            return read_manifest(folder)
        parent = read_manifest(artifact_folder(workspace, kind, name))
        files = [artifact_folder(workspace, kind, name) / e.path for e in parent.files if is_table(e.path)]
        aside = partial_path(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        tables = _SHARDS if kind == "shards" else _SAMPLES
        progress.start(f"index {kind} {name}", total=len(tables))
        with open_duckdb() as db:
            columns = _open_rows(db, files)
            for table, query in tables.items():
                _write(db, aside / f"{table}.parquet", query, columns)
                progress.advance()
        counts = Counts(seen=parent.counts.seen, kept=parent.counts.seen)
        made = write_manifest(
            aside,
            kind="index",
            name=f"{kind}/{name}",
            counts=counts,
            parents=[parent],
            recipe={"format": FORMAT},
            stats={"of_built": any(before.kind == "samples" for before in parent.parents)},
        )
        shutil.rmtree(folder, ignore_errors=True)
        aside.replace(folder)
        progress.finish(f"{parent.counts.seen:,} rows")
    return made


def drop_index(workspace: Path, kind: str, name: str) -> None:
    """Remove an artifact's index, because the artifact is about to be made anew."""
    shutil.rmtree(workspace / "index" / kind / name, ignore_errors=True)


def _open_rows(db: duckdb.DuckDBPyConnection, files: list[Path]) -> dict[str, str]:
    """Make the view `rows` and the table `domains`; returns which column answers for what ("" where none does)."""
    db.execute("set preserve_insertion_order = false")
    if not files:
        db.execute("create view rows as select null::varchar as sample_id where false")
        return dict.fromkeys(("url", "domain", "sha256", "media_sha256"), "")
    relation = f"read_parquet({file_list(files)}, filename = true, file_row_number = true, union_by_name = true)"
    db.execute(f"create view rows as from {relation}")
    present = {row[0] for row in db.execute("describe rows").fetchall()}
    columns = {name: name if name in present else "" for name in ("domain", "sha256", "media_sha256")}
    columns["url"] = next((name for name in ("canonical_url", "url") if name in present), "")
    if columns["domain"]:
        db.execute(_DOMAINS.format(**columns))
    return columns


def _write(db: duckdb.DuckDBPyConnection, path: Path, query: str, columns: Mapping[str, str]) -> None:
    """Write one table of the index; none for columns that the artifact does not have."""
    asked = {name: column for name, column in columns.items() if f"{{{name}}}" in query}
    if "from domains" in query:
        asked["domain"] = columns["domain"]
    if all(asked.values()):
        db.execute(f"copy ({query.format(**columns)}) to {quoted(str(path))} (codec zstd, row_group_size {ROW_GROUP})")
