"""What can only be decided with the whole corpus in view: duplicates, placeholders, repeated captions, dead hosts.

In go the ratings of all shards, out come verdicts by sample id. Of alike rows the smallest id is kept, so neither the
order of rows nor that of arrival matters; and pictures that come later (`--retry`) never bring a duplicate back.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from owl3.curate.blocklist import Blocked
from owl3.curate.contamination import Fingerprints, find_contaminated, find_quoted, overlap_lists
from owl3.curate.decide import CaptionRules
from owl3.curate.dedup import I64, U64, DedupConfig, group_equal, group_near
from owl3.curate.hosts import NO_ANSWER
from owl3.storage import write_atomic

RATING_COLUMNS = pa.schema(
    [
        ("sample_id", pa.string()),
        ("canonical_url", pa.string()),
        ("domain", pa.string()),
        ("caption", pa.string()),
        ("reason", pa.string()),
        ("answered", pa.bool_()),  # by its host
        ("media_sha256", pa.string()),
        ("same_media", pa.string()),  # equal for rows that store the same: the hash, and the part cut out of a clip
        ("phash", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the view of the whole corpus adds to a row; `reason` None keeps it, and only adds."""

    reason: str | None
    duplicate_of: str | None = None
    benchmark: str | None = None


@dataclass(frozen=True, slots=True)
class Looks:
    """What to look for."""

    dedup: DedupConfig
    captions: CaptionRules
    dead_host_failures: int
    blocked: Blocked
    benchmarks: Sequence[Fingerprints] = field(default=())
    retracted_media: frozenset[str] = frozenset()
    """Hashes of pictures that were retracted: they come back under other URLs."""


def look(ratings: pa.Table, looks: Looks) -> dict[str, Verdict]:
    """Return the verdicts of the whole corpus, by sample id."""
    ids = np.array(ratings.column("sample_id").to_pylist(), dtype="S32")
    verdicts = {ids[row].decode(): Verdict("dead_host") for row in _dead_host_rows(ratings, looks.dead_host_failures)}
    alive = np.flatnonzero(pc.is_null(ratings.column("reason")).to_numpy(zero_copy_only=False))
    alive = alive[np.argsort(ids[alive], kind="stable")]
    view = _View(ratings.take(pa.array(alive)), ids[alive])
    for row, verdict in view.judge(looks):
        verdicts[view.ids[row].decode()] = verdict
    return verdicts


def _dead_host_rows(ratings: pa.Table, enough: int) -> I64:
    """Rows of hosts that answered nothing, when there are enough of them to call the host dead.

    Whether a row was tried before or after the breaker opened depends on timing; that its host is dead does not.
    """
    hosts = _codes(ratings.column("domain"))
    silent = pc.fill_null(pc.is_in(ratings.column("reason"), pa.array(sorted(NO_ANSWER))), False)
    is_silent: NDArray[np.bool_] = silent.to_numpy(zero_copy_only=False)
    answered: NDArray[np.bool_] = ratings.column("answered").to_numpy(zero_copy_only=False)
    silent_rows = np.bincount(hosts[is_silent], minlength=int(hosts.max(initial=-1)) + 1)
    dead = silent_rows >= enough
    dead[hosts[answered]] = False
    return np.flatnonzero(is_silent & dead[hosts])


def _codes(column: pa.ChunkedArray) -> I64:
    """Number equal values alike."""
    encoded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    return np.asarray(encoded.indices.to_numpy(zero_copy_only=False), dtype=np.int64)


class _View:
    """Rows that are still alive, in the order of their ids."""

    def __init__(self, ratings: pa.Table, ids: NDArray[np.bytes_]) -> None:
        self.ids = ids
        self._table = ratings
        self._gone = np.zeros(len(ids), dtype=bool)
        phash = ratings.column("phash")
        self._has_phash: NDArray[np.bool_] = pc.is_valid(phash).to_numpy(zero_copy_only=False)
        self._phash: U64 = np.array([int(value or "0", 16) for value in phash.to_pylist()], dtype=np.uint64)
        self._media = _codes(ratings.column("same_media"))
        self._texts = _codes(ratings.column("caption"))
        self._urls = _codes(ratings.column("canonical_url"))

    def judge(self, looks: Looks) -> Iterator[tuple[int, Verdict]]:
        """Each look sees what the ones before it have left."""
        for step in (self._blocked, self._contaminated, self._placeholders, self._duplicates, self._repeated):
            found = {row: verdict for row, verdict in step(looks) if not self._gone[row]}
            dropped = [row for row, verdict in found.items() if verdict.reason is not None]
            self._gone[dropped] = True
            yield from found.items()

    def _left(self) -> I64:
        return np.flatnonzero(~self._gone)

    def _blocked(self, looks: Looks) -> Iterator[tuple[int, Verdict]]:
        listed = {"blocklisted": looks.blocked.sha256, "tombstoned": looks.retracted_media}
        digests = self._table.column("media_sha256").to_pylist() if any(listed.values()) else []
        for reason, hashes in listed.items():
            yield from ((row, Verdict(reason)) for row, digest in enumerate(digests) if digest in hashes)
        for row in looks.blocked.near(self._phash):
            if self._has_phash[row]:
                yield row, Verdict("blocklisted")

    def _contaminated(self, looks: Looks) -> Iterator[tuple[int, Verdict]]:
        if not looks.benchmarks:
            return
        digests = self._table.column("media_sha256").to_pylist()
        quoted = find_quoted(self._table.column("caption").to_pylist(), looks.benchmarks)
        shown = find_contaminated(digests, self._phash, self._has_phash, looks.benchmarks)
        hits = sorted(
            [*quoted.items(), *shown.items()], key=lambda hit: hit[1][1] == "drop"
        )  # of two, a drop goes last
        for row, (name, action) in hits:
            yield row, Verdict("contaminated" if action == "drop" else None, benchmark=name)

    def _placeholders(self, looks: Looks) -> Iterator[tuple[int, Verdict]]:
        """The same bytes under many URLs are nobody's picture: not even one of them is kept."""
        enough = looks.dedup.placeholder_urls
        left = self._left()
        if enough is None or not len(left):
            return
        distinct = np.unique(np.stack([self._media[left], self._urls[left]]), axis=1)
        num_urls = np.bincount(distinct[0])
        for row in left[num_urls[self._media[left]] >= enough]:
            yield int(row), Verdict("placeholder_image")

    def _duplicates(self, looks: Looks) -> Iterator[tuple[int, Verdict]]:
        config, left = looks.dedup, self._left()
        exact = np.arange(len(left), dtype=np.int64)
        if config.exact == "media":
            exact = group_equal(self._media[left])
        elif config.exact == "media_and_caption":
            exact = group_equal(self._media[left] * (int(self._texts.max(initial=0)) + 1) + self._texts[left])
        yield from self._named(left, exact, "duplicate_exact")
        left = left[(exact == np.arange(len(left))) & self._has_phash[left]]
        if config.near_radius is not None and len(left):
            texts = self._texts[left] if config.near_caption == "same" else None
            yield from self._named(left, group_near(self._phash[left], config.near_radius, texts), "duplicate_near")

    def _named(self, rows: I64, kept: I64, reason: str) -> Iterator[tuple[int, Verdict]]:
        """Verdicts for rows whose group keeps another one."""
        for index in np.flatnonzero(kept != np.arange(len(rows))):
            yield int(rows[index]), Verdict(reason, duplicate_of=self.ids[rows[kept[index]]].decode())

    def _repeated(self, looks: Looks) -> Iterator[tuple[int, Verdict]]:
        most = looks.captions.max_repeats
        if most is None:
            return
        left = self._left()
        order = np.argsort(self._texts[left], kind="stable")  # ids stay in order within a caption
        codes = self._texts[left][order]
        starts = np.concatenate([[0], np.flatnonzero(np.diff(codes)) + 1]).astype(np.int64)
        place = np.arange(len(codes)) - np.repeat(starts, np.diff(np.append(starts, len(codes))))
        for row in left[order[place >= most]]:
            yield int(row), Verdict("caption_repeated")


def list_overlaps(
    folder: Path, tables: Sequence[Path], verdicts: Mapping[str, Verdict], benchmarks: Sequence[Fingerprints]
) -> None:
    """Write `overlap-BENCHMARK.txt` for each benchmark that flags: what kept rows show or quote of it.

    Args:
        tables: The ratings of all shards.
    """
    if not any(prints.flags for prints in benchmarks):
        return
    flagged = [key for key, verdict in verdicts.items() if verdict.reason is None and verdict.benchmark]
    rows = [pq.read_table(table, filters=pc.field("sample_id").isin(flagged)) for table in tables]
    for name, listed in overlap_lists(pa.concat_tables(rows), benchmarks).items():
        write_atomic(folder / f"overlap-{name}.txt", "".join(f"{entry}\n" for entry in listed).encode())


def as_table(rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Rows as a ratings table."""
    return pa.Table.from_pylist(list(rows), schema=RATING_COLUMNS)
