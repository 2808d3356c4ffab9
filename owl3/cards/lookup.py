"""Which rows of the ledger a subject means, what was built from them, and where all that stands.

The answer is two temporary tables of the connection:
    hits    sample_id, key, what, text, kind                        what a subject means, and all that was built from it
    places  kind, artifact, shard, row, sample_id, position, kept   the rows of these in the ledger's tables

An artifact with a current index (`index.py`) is asked through it; of any other the tables are read. The answers are the
same; only the time differs.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from owl3.cards.erasure import hashed
from owl3.cards.index import INDEXED, Index, artifacts, current, hash_key, key_of
from owl3.cards.subjects import MAX_PHASH_BITS, Subject
from owl3.cards.tables import file_list, records
from owl3.ledger import check_tables, connect, read_tombstones
from owl3.samples import canonical_id

logger = logging.getLogger(__name__)

MANY_FILES = 500
"""From so many tables on, reading them all takes long enough to say how it would be quicker."""

FEW_KEYS = 5_000
"""Up to so many keys are looked for one by one in a sorted file: of more, most of its row groups hold some anyway."""

_JOINED = {"url": ("canonical_url", "url"), "sha256": ("sha256", "media_sha256"), "sample_id": ("sample_id",)}
"""Subjects that a table can be joined with, however many there are, and by which columns."""

_INDEX_OF = {"url": "urls", "sha256": "hashes"}
_KEYS = {"url": hash_key("value"), "sha256": "try_cast(left(value, 32) as uuid)"}
_TEXT = "replace(id::varchar, '-', '')"
_SHARD = "right(filename, 13)[1:5]::uinteger"
_ORDERS = {
    "shards": ("true", "c.kept desc, c.sample_id, c.artifact"),
    "samples": ("kept", "c.artifact, c.sample_id"),
}
"""Which places are listed, and what comes first."""
_ASKED = pa.schema([("what", pa.string()), ("text", pa.string()), ("value", pa.string())])


class Lookup:
    """The ledger of a workspace, to be asked. Use it as a context.

    Raises:
        InputError: there is no such workspace, or a finished artifact lacks a table.
    """

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        self.db = connect(workspace, views=("tombstones",))
        self.db.execute(f"set dynamic_or_filter_threshold = {FEW_KEYS}")
        check_tables(workspace, ("sources", *INDEXED))
        self.indexes: dict[str, list[Index]] = {}
        self._read: dict[str, set[str]] = {}
        for kind in INDEXED:
            folders = artifacts(workspace, kind)
            found = {folder: current(workspace, kind, folder.name) for folder in folders}
            self.indexes[kind] = [index for index in found.values() if index is not None]
            files = _tables([folder for folder, index in found.items() if index is None])
            if len(files) >= MANY_FILES:
                logger.warning("%d tables of %s are read one by one; `owl3 index` makes this quick", len(files), kind)
            self._read[kind] = self._view(f"{kind}_read", files)
        self.db.execute(
            "create temp table hits (sample_id varchar, key uuid, what varchar, text varchar, kind varchar)"
        )
        self.db.execute("create temp table pairs (sample_id varchar, what varchar, text varchar, kind varchar)")
        self.db.execute(
            "create temp table known (artifact varchar, shard uinteger, row ubigint, key uuid, kept boolean)"
        )
        self.db.execute(
            "create temp table places (kind varchar, artifact varchar, shard uinteger, row ubigint, "
            "sample_id varchar, position bigint, kept boolean)"
        )

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.db.close()

    def _view(self, name: str, files: Sequence[Path]) -> set[str]:
        """A view over tables with `artifact`, `shard_number` and `file_row_number`; returns its columns."""
        if not files:
            return set()
        self.db.execute(
            f"create or replace view {name} as select *, {_SHARD} as shard_number, "
            "regexp_extract(filename, '([^/]+)/[^/]+$', 1) as artifact from "
            f"read_parquet({file_list(files)}, filename = true, file_row_number = true, union_by_name = true)"
        )
        return {row[0] for row in self.db.execute(f"describe {name}").fetchall()}

    def one(self, query: str, values: Sequence[Any] = ()) -> int:
        """A query's single number."""
        return int(self.db.execute(query, list(values)).fetchall()[0][0])

    def find(self, subjects: Sequence[Subject]) -> set[str]:
        """Fill `hits` and `places`; returns the texts of those subjects that mean anything."""
        asked = [(s.what, s.text, value) for s in subjects if s.what in _JOINED for value in dict.fromkeys(s.values)]
        asked += [("sha256", s.text, s.values[0]) for s in subjects if s.what == "image"]
        columns = [list(column) for column in zip(*asked, strict=True)] if asked else [[], [], []]
        self.db.register("asked", pa.table(dict(zip(_ASKED.names, columns, strict=True)), schema=_ASKED))
        for what in sorted({entry[0] for entry in asked}):
            self._join(what)
        for subject in subjects:
            if subject.what == "domain":
                self._find_domain(subject)
            elif subject.what == "licence" or (subject.what == "image" and len(subject.values) > 1):
                self._scan(subject)
        self.db.unregister("asked")
        self._join_tombstones(subjects)
        kind = "case when count(kind) = count(*) then min(kind) end"
        self.db.execute(
            f"insert into hits select sample_id, null, min(what), min(text), {kind} from pairs group by sample_id"
        )
        self.db.execute(f"update hits set key = {key_of('sample_id')}")
        self._descend()
        self._place()
        return {str(row[0]) for row in self.db.execute("select distinct text from pairs").fetchall()}

    def _join(self, what: str) -> None:
        """Insert what matches any of the values that are asked for."""
        certain = "'shards'" if what == "url" else "null"  # a hash or an id may be a built sample's too
        for kind in INDEXED if what != "url" else ("shards",):
            for column in _JOINED[what] if kind == "shards" or what == "sample_id" else ():
                if column in self._read[kind]:
                    self.db.execute(
                        f"insert into pairs select distinct r.sample_id, a.what, a.text, {certain} from {kind}_read r "
                        f"join asked a on r.{column} = a.value where a.what = '{what}'"
                    )
            for index in self.indexes[kind]:
                if what == "sample_id":
                    self.db.execute(
                        f"insert into pairs select distinct {_TEXT}, what, text, null from {index.table('ids')} "
                        f"join asked on id = {key_of('value')} where what = 'sample_id'"
                    )
                elif kind == "shards" and index.has(_INDEX_OF[what]):
                    self._join_index(index, what)
        if what == "sha256":
            self._join_files()
        if what != "sha256" and not (self._read["shards"] or self.indexes["shards"]):
            self._join_sources(what)

    def _join_index(self, index: Index, what: str) -> None:
        """Let the index say where to look, and the rows there whether it is so: keys are half of a hash."""
        self.db.execute(
            "create or replace temp table candidates as select distinct shard, row, value, text "
            f"from {index.table(_INDEX_OF[what])} t join (select *, {_KEYS[what]} as key from asked where what = ?) a "
            "on t.key = a.key",
            [what],
        )
        shards = [row[0] for row in self.db.execute("select distinct shard from candidates order by shard").fetchall()]
        present = self._view("candidate_rows", [index.ledger_table(shard) for shard in shards])
        same = " or ".join(f"r.{column} = c.value" for column in _JOINED[what] if column in present)
        if same:
            self.db.execute(
                f"insert into pairs select distinct r.sample_id, '{what}', c.text, 'shards' from candidate_rows r "
                f"join candidates c on r.shard_number = c.shard and r.file_row_number = c.row where {same}"
            )

    def _join_files(self) -> None:
        """Samples built from local files name them by hash, as parents of their own."""
        if "parents" in self._read["samples"]:
            self.db.execute(
                "insert into pairs select distinct s.sample_id, a.what, a.text, 'samples' from "
                "(select sample_id, unnest(parents) as parent from samples_read) s "
                "join asked a on s.parent = 'sha256:' || a.value where a.what = 'sha256'"
            )
        for index in self.indexes["samples"]:
            self.db.execute(
                f"insert into pairs select distinct {_TEXT}, what, text, 'samples' from {index.table('children')} c "
                "join (select what, text, 'sha256:' || value as file from asked where what = 'sha256') "
                f"on c.parent = {hash_key('file')}"
            )

    def _join_tombstones(self, subjects: Sequence[Subject]) -> None:
        """What a purge cleared from the ledger is told again by its hash: a URL, or what was asked for then."""
        asked = {canonical_id(subject.values[-1]): subject for subject in subjects if subject.what == "url"}
        asked |= {hashed(subject.text): subject for subject in subjects if subject.what in ("url", "domain")}
        if not asked:
            return
        rows, keys = read_tombstones(self.workspace), pa.array(asked, pa.string())
        for column in ("url_id", "matched_value"):
            found = rows.filter(pc.is_in(rows[column], keys))
            pairs = zip(found["sample_id"].to_pylist(), found[column].to_pylist(), strict=True)
            for sample_id, key in pairs:
                self.db.execute(
                    "insert into pairs values (?, ?, ?, null)", [sample_id, asked[key].what, asked[key].text]
                )

    def _join_sources(self, what: str) -> None:
        """Before anything was fetched, a URL stands in its source alone."""
        present = self._view("sources_read", sorted(self.workspace.glob("sources/*/urls-*.parquet")))
        for column in _JOINED[what]:
            if column in present:
                self.db.execute(
                    "insert into pairs select distinct r.sample_id, a.what, a.text, null from sources_read r "
                    f"join asked a on r.{column} = a.value where a.what = '{what}'"
                )

    def _find_domain(self, subject: Subject) -> None:
        """A host and its subdomains."""
        host = subject.values[0]
        if "domain" in self._read["shards"]:
            self.db.execute(
                "insert into pairs select distinct sample_id, 'domain', ?, 'shards' from shards_read "
                "where domain = ? or suffix(domain, '.' || ?)",
                [subject.text, host, host],
            )
        for index in self.indexes["shards"]:
            if index.has("domains"):
                self.db.execute(
                    f"insert into known select ?, shard, row, id, kept from {index.table('domain_rows')} "
                    f"semi join (select number from {index.table('domains')} where reversed = reverse(?) "
                    "or prefix(reversed, reverse(?) || '.')) using (number)",
                    [index.name, host, host],
                )
                self.db.execute(
                    "insert into pairs select distinct replace(key::varchar, '-', ''), 'domain', ?, 'shards' "
                    "from known where artifact = ?",
                    [subject.text, index.name],
                )

    def _scan(self, subject: Subject) -> None:
        """What no index answers: licences, which a large part of the rows have, and looks."""
        present = self._view("every_row", _tables(artifacts(self.workspace, "shards")))
        condition, values = "licence = ?", [subject.text]
        if subject.what == "image":
            condition = f"bit_count(xor(try_cast('0x' || phash as ubigint), ('0x' || ?)::ubigint)) <= {MAX_PHASH_BITS}"
            values = [subject.values[1]]
        if {"licence": "licence", "image": "phash"}[subject.what] in present:
            self.db.execute(
                f"insert into pairs select distinct sample_id, ?, ?, 'shards' from every_row where {condition}",
                [subject.what, subject.text, *values],
            )

    def _descend(self) -> None:
        """Add every built sample with a hit among its parents, and those built from these, to the end."""
        self.db.execute("create or replace temp table frontier as from hits")
        first = True
        while ways := self._ways(to_built=not first):
            self.db.execute(
                "create or replace temp table frontier as select s.sample_id, s.key, min(f.what) as what, "
                f"min(f.text) as text, 'samples' as kind from ({' union all '.join(ways)}) s "
                "join frontier f on s.parent = f.key anti join hits h on s.key = h.key group by s.sample_id, s.key"
            )
            if not self.one("select count(*) from frontier"):
                return
            self.db.execute("insert into hits from frontier")
            first = False

    def _ways(self, *, to_built: bool) -> list[str]:
        """Queries for (sample_id, key, parent) of built samples; `to_built`: where parents may be such, too."""
        indexes = [index for index in self.indexes["samples"] if index.of_built or not to_built]
        ways = [f"select {_TEXT} as sample_id, id as key, parent from {i.table('children')}" for i in indexes]
        if "parents" in self._read["samples"]:
            ways.append(
                f"select sample_id, {key_of('sample_id')} as key, {key_of('parent')} as parent "
                "from (select sample_id, unnest(parents) as parent from samples_read)"
            )
        return ways

    def _place(self) -> None:
        """Fill `places` with the rows of all hits; an index that has told them already is not asked again."""
        for kind in INDEXED:
            position = "position" if kind == "samples" else "null"
            if self._read[kind]:
                self.db.execute(
                    f"insert into places select '{kind}', artifact, shard_number, file_row_number, sample_id, "
                    f"{position}, decision = 'kept' from {kind}_read semi join hits using (sample_id)"
                )
            for index in self.indexes[kind]:
                self.db.execute(
                    "create or replace temp table wanted as select sample_id, key from hits "
                    "anti join (from known where artifact = ?) using (key) where coalesce(kind, ?) = ?",
                    [index.name if kind == "shards" else "", kind, kind],
                )
                if kind == "shards":
                    self.db.execute(
                        "insert into places select distinct 'shards', k.artifact, k.shard, k.row, h.sample_id, "
                        "null::bigint, k.kept from known k join hits h using (key) where k.artifact = ?",
                        [index.name],
                    )
                if self.one("select count(*) from wanted"):
                    self.db.execute(
                        f"insert into places select '{kind}', ?, i.shard, i.row, w.sample_id, {position}, i.kept "
                        f"from {index.table('ids')} i join wanted w on i.id = w.key",
                        [index.name],
                    )

    def rows(self, kind: str, columns: Collection[str], most: int) -> list[dict[str, Any]]:
        """Read the first rows of `places` of one kind from the ledger's tables, columns that are there."""
        choice, order = _ORDERS[kind]
        self.db.execute(
            "create or replace temp table chosen as from places c "
            f"where kind = ? and {choice} order by {order} limit {most}",
            [kind],
        )
        files = self.db.execute("select distinct artifact, shard from chosen order by all").fetchall()
        present = self._view(
            "chosen_rows", [self.workspace / kind / name / f"{shard:05d}.parquet" for name, shard in files]
        )
        wanted = [name for name in columns if name in present]
        if not wanted:
            return []
        return records(
            self.db,
            f"select {', '.join(f'r.{name}' for name in wanted)} from chosen c join chosen_rows r "
            "on c.artifact = r.artifact and c.shard = r.shard_number and c.row = r.file_row_number "
            f"order by {order}",
        )

    def ids(self) -> pa.Array:
        """Ids of all hits, rising."""
        rows = self.db.sql("select sample_id from hits order by sample_id").to_arrow_table()
        return rows["sample_id"].combine_chunks()

    def positions(self, name: str) -> tuple[list[int], list[int], list[str]]:
        """Shard, number within the shard and id of the kept samples of an artifact that were found."""
        rows = self.db.execute(
            "select shard, position, sample_id from places "
            "where kind = 'samples' and kept and artifact = ? order by all",
            [name],
        ).fetchall()
        return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]

    def tombstoned(self) -> int:
        """How many hits are retracted already."""
        if not self.db.execute("select 1 from duckdb_views() where view_name = 'tombstones'").fetchall():
            return 0
        return self.one("select count(distinct sample_id) from tombstones semi join hits using (sample_id)")

    def artifacts(self, kind: str, condition: str = "true") -> list[dict[str, Any]]:
        """Artifacts that hold hits, with the shards of each."""
        shards = "list_sort(list(distinct lpad(shard::varchar, 5, '0'))) as shards"
        query = f"select artifact as name, count(*) as amount, {shards} from places where kind = ? and {condition}"
        return [
            {"kind": kind, **row} for row in records(self.db, f"{query} group by artifact order by artifact", [kind])
        ]


def _tables(folders: Sequence[Path]) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.glob("[0-9][0-9][0-9][0-9][0-9].parquet"))]
