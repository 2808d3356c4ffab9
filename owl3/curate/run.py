"""From a URL table to shards: fetch → rights → decide → deduplicate → decontaminate, every row kept or counted.

    shards/NAME/_work/     rows, spools, img2dataset's shards, ratings; removed when the shards are final
    shards/NAME/_state/    per shard the journal of its fetches and what img2dataset said: what `--retry` starts from
    shards/NAME/           00000.tar 00000.parquet 00000_evidence.parquet 00000_stats.json … manifest.json

Each step leaves files and looks at files, so a killed run goes on where it was, and gives the same bytes.
"""

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from owl3.config import digest_of
from owl3.curate.blocklist import Blocked, load_blocklists
from owl3.curate.captions import redact_captions, tell_languages
from owl3.curate.config import CurateConfig, check_contact, num_shards, shards_folder
from owl3.curate.contamination import Fingerprints, fingerprint
from owl3.curate.decide import (
    CaptionRules,
    Row,
    clip_checks,
    first_reason,
    image_checks,
    row_checks,
)
from owl3.curate.embed import check_model, embed, index_distinct, index_folder, similarities
from owl3.curate.faces import open_detector
from owl3.curate.fetching import fetch_all
from owl3.curate.overview import Looks, Verdict, list_overlaps, look
from owl3.curate.publish import Judge, Label, ShardFiles, judge, keep_engine_rows, publish
from owl3.curate.retry import has_transient_drops, previous_version, start_from, stay_dropped, take_place
from owl3.curate.sources.urltables import iter_rows, source_folder
from owl3.errors import CheckFailed, StaleError
from owl3.ledger import read_retracted
from owl3.manifest import (
    Counts,
    Manifest,
    find_current,
    lock_path,
    now,
    read_manifest,
    tool_versions,
    write_manifest,
)
from owl3.progress import SILENT, Progress
from owl3.shards import write_table
from owl3.storage import range_lock, write_atomic

logger = logging.getLogger(__name__)

_WORK = "_work"
_WORK_FORMAT = 2
"""Of what lies in there. Work of another version of owl3 is not gone on with."""
_STATE = "_state"
_VOLATILE = ("*_evidence.parquet", "*_stats.json")


def curate(
    config: CurateConfig,
    workspace: Path,
    *,
    resolve: Mapping[str, str] | None = None,
    retry: bool = False,
    renew: bool = False,
    progress: Progress = SILENT,
) -> Manifest:
    """Make `shards/NAME`, or return its manifest when it is done already; a killed run is resumed.

    Args:
        resolve: Where some hosts really are ("*.owl3.test" to "127.0.0.1:8123"), as curl's `--resolve`. It says
            where, not what, so it is no part of the recipe or the digest.
        retry: Fetch those rows of a finished artifact again that failed for a transient reason; a new version takes
            its place. What was kept stays, byte by byte.
        renew: Make what another recipe or another source made anew; the old version stays until the new one is whole.

    Raises:
        InputError: the source is not prepared, or img2dataset is missing or keeps failing.
        StaleError: another recipe or source made what lies there, and `renew` is off.
        ConfigError: the recipe can't be run.
        CheckFailed: more rows were dropped than `max_drop_fraction` allows.
    """
    folder = shards_folder(workspace, config.name)
    source = read_manifest(source_folder(workspace, config.source))
    recipe = config.recipe(workspace)
    with FileLock(lock_path(folder.parent).with_name(f".{config.name}.lock")), range_lock(ranges_path(folder), *EVERY):
        next_version = previous_version(folder)
        try:
            current, is_stale = find_current(folder, recipe, [source]), False
        except StaleError as error:
            if not renew:
                raise StaleError(
                    f"{error}; or curate with --backfill, which keeps it until the new one is whole"
                ) from None
            current, is_stale = None, True
        if current is not None:
            shutil.rmtree(folder / _WORK, ignore_errors=True)
            if not retry or not has_transient_drops(current):
                return current
        run = CurateRun(config, workspace, source=source, recipe=recipe, resolve=resolve or {}, progress=progress)
        if current is None and not is_stale:
            return run.run(folder, None, renew)
        manifest = run.run(next_version, None if is_stale else folder, renew)
        take_place(next_version, folder)
        return manifest


EVERY = (0, 1 << 62)
"""All shards of a set, however many there are."""
_BEGINNING = (1 << 62, (1 << 62) + 1)
"""Held while it is decided whose work lies there; partitions begin at once."""


def ranges_path(folder: Path) -> Path:
    """The file whose numbers are the shards of a set that somebody works on (`range_lock`)."""
    return folder.with_name(f".{folder.name}.shards")


def made_for(recipe: dict[str, Any], source: Manifest) -> str:
    """What unfinished work says that it is for: whoever wants something else must not go on with it."""
    return digest_of([_WORK_FORMAT, recipe, source.digest])


class CurateRun:
    """The steps of one run, in order; each does only what is missing."""

    def __init__(
        self,
        config: CurateConfig,
        workspace: Path,
        *,
        source: Manifest,
        recipe: dict[str, Any],
        resolve: Mapping[str, str],
        progress: Progress,
    ) -> None:
        check_contact(config)
        self.config = config
        self.workspace = workspace
        self.source = source
        self.recipe = recipe
        self.media: str = source.stats["media"]
        self.resolve = dict(resolve)
        self.progress = progress

    def begin(self, folder: Path, previous: Path | None, renew: bool = False) -> None:
        """Say where the work lies; what another recipe or source began there is refused or, to `renew`, thrown away.

        Raises:
            StaleError: it was begun for something else.
        """
        self.folder, self.work, self.previous = folder, folder / _WORK, previous
        mine, mark = made_for(self.recipe, self.source), self.work / "made_for"
        with range_lock(ranges_path(shards_folder(self.workspace, self.config.name)), *_BEGINNING):
            if mark.is_file() and mark.read_text(encoding="ascii") != mine:
                if not renew:
                    raise StaleError(
                        f"{self.work}: was begun with another recipe, source or version of owl3; choose another name, "
                        "remove the folder, or curate with --backfill to begin anew"
                    )
                shutil.rmtree(self.work)
            write_atomic(mark, mine.encode("ascii"))

    def fetch(self, wanted: range) -> list[str]:
        """Fetch and judge the shards with these numbers; returns their names. The rest of the corpus is not needed."""
        shards = self._split(load_blocklists(self.config.blocklists, self.workspace), wanted)
        if self.previous is not None:
            for shard in shards:
                start_from(self.previous / _STATE, self.files(shard), self.media)
        config, files = self.config, [self.files(shard) for shard in shards]
        fetch_all(files, self.media, config.fetch, config.engine, resolve=self.resolve, progress=self.progress)
        self._judge(shards)
        return shards

    def run(self, folder: Path, previous: Path | None, renew: bool = False) -> Manifest:
        """Make the artifact in `folder`; with `previous`, from an earlier version of it."""
        config, started = self.config, now()
        self.begin(folder, previous, renew)
        benchmarks = [fingerprint(benchmark, self.workspace) for benchmark in config.decontaminate]
        blocked = load_blocklists(config.blocklists, self.workspace)
        self.find_faces = None if config.faces is None else open_detector(config.faces, self.workspace)
        if config.clip is not None:
            check_model(config.clip)
        shards = self.fetch(range(num_shards(config, self.workspace)))
        verdicts = self._look_at_all(shards, benchmarks, blocked)
        scores = self._score(shards, verdicts) if config.clip is not None else {}
        counts = self._publish(shards, verdicts, scores)
        list_overlaps(folder, [self.files(shard).rating for shard in shards], verdicts, benchmarks)
        self._check_drops(counts)
        versions = tool_versions("aiohttp", "protego", "pillow", "numpy", "pyarrow", "av", "opencv-python-headless")
        if self.media == "image" and config.engine.distributor != "none":
            versions |= {"img2dataset": "1.47.0"}
        manifest = write_manifest(
            folder,
            kind="shards",
            name=config.name,
            counts=counts,
            recipe=self.recipe,
            parents=[self.source],
            stats={
                "media": self.media,
                "source": config.source,
                "shards": len(shards),
                "decontaminated_against": {prints.config.name: prints.describe() for prints in benchmarks},
            },
            tools=versions,
            volatile=_VOLATILE,
            exclude=[f"{_WORK}/*", f"{_STATE}/*"],
            started=started,
        )
        shutil.rmtree(self.work)
        return manifest

    def files(self, shard: str) -> ShardFiles:
        """Where a shard's working files lie."""
        return ShardFiles(self.work, shard, self.previous)

    def _split(self, blocked: Blocked, numbers: range) -> list[str]:
        """Cut the source into shards and decide what can be decided before anything is fetched."""
        rules = self.config.rows
        checks = row_checks(rules)
        retracted = read_retracted(self.workspace)
        source = source_folder(self.workspace, self.config.source)
        shards = [f"{number:05d}" for number in numbers]
        if all(self.files(shard).fetch.is_file() for shard in shards):
            return shards
        tables = iter_rows(source, self.config.engine.number_sample_per_shard, numbers.start)
        for shard, table in zip(shards, tables, strict=False):  # of the corpus only its first shards may be wanted
            files = self.files(shard)
            if files.fetch.is_file():
                continue
            told = _told(table, rules.caption)
            reasons: list[str | None] = []
            for row in told.to_pylist():
                if retracted.has(row["sample_id"], row["canonical_url"]):
                    reasons.append("tombstoned")
                else:
                    reasons.append("blocklisted" if blocked.has_row(row) else first_reason(checks, _facts(row)))
            rows = redact_captions(told, rules.caption.urls == "redact", rules.caption.personal_data == "redact")
            write_table(files.rows, rows.append_column("reason", pa.array(reasons, pa.string())))
            wanted = [index for index, reason in enumerate(reasons) if reason is None]
            urls = table.column("url").take(pa.array(wanted, pa.int64()))
            write_table(files.fetch, pa.table({"index": pa.array(wanted, pa.int64()), "url": urls}))
        return shards

    def _judge(self, shards: Sequence[str]) -> None:
        checks: list[Any] = image_checks(self.config.image) if self.media == "image" else clip_checks(self.config.video)
        for files in map(self.files, shards):
            if not files.rating.is_file():
                judge(files, Judge(self.media, checks, self.config.verify_sha256))

    def _look_at_all(
        self, shards: Sequence[str], benchmarks: Sequence[Fingerprints], blocked: Blocked
    ) -> dict[str, Verdict]:
        config = self.config
        ratings = pa.concat_tables([pq.read_table(self.files(shard).rating) for shard in shards])
        dead, media = config.fetch.hosts.dead_host_failures, read_retracted(self.workspace).media_sha256
        looks = Looks(config.dedup, config.rows.caption, dead, blocked, benchmarks, media)
        verdicts = look(ratings, looks)
        if self.previous is not None:
            stay_dropped(self.previous, shards, ratings, verdicts)
        return verdicts

    def _label(self, scores: Mapping[str, float]) -> Label:
        config = self.config
        return Label(
            self.media, config.source, config.fetch.user_agent, config.engine.jpeg_quality, scores, self.find_faces
        )

    def _score(self, shards: Sequence[str], verdicts: dict[str, Verdict]) -> dict[str, float]:
        """Let CLIP look at what would be kept; add verdicts for what does not match, and index the rest."""
        clip, unscored, embedded = self.config.clip, self.work / "unscored", self.work / "embedded"
        assert clip is not None
        self.progress.start(f"score {self.config.name}", None)
        for shard in shards:
            publish(self.files(shard), unscored, self._label({}), verdicts)
        embed([unscored / f"{shard}.tar" for shard in shards], embedded, clip)
        scores = similarities(embedded, shards)
        low = {key for key, score in scores.items() if clip.min_similarity is not None and score < clip.min_similarity}
        verdicts |= {key: Verdict("low_clip_similarity") for key in low}
        folder = index_folder(self.workspace, self.config.name) if clip.index else self.work / "index"
        copies = index_distinct(embedded, shards, scores.keys() - low, folder, clip)
        verdicts |= {key: Verdict("duplicate_embedding", duplicate_of=kept) for key, kept in copies.items()}
        self.progress.finish(f"{len(scores)} pictures, {len(low)} unlike their captions, {len(copies)} alike")
        return scores

    def _publish(self, shards: Sequence[str], verdicts: Mapping[str, Verdict], scores: Mapping[str, float]) -> Counts:
        config = self.config
        self.progress.start(f"write {config.name}", len(shards))
        label = self._label(scores)
        parts = []
        for shard in shards:
            files = self.files(shard)
            parts.append(publish(files, self.folder, label, verdicts))
            keep_engine_rows(files)
            state = self.folder / _STATE / shard
            state.mkdir(parents=True, exist_ok=True)
            shutil.copy(files.spool / "journal.jsonl", state / "journal.jsonl")
            shutil.copy(files.engine_rows, state / "engine_rows.parquet")
            self.progress.advance()
        counts = Counts.total(parts)
        self.progress.finish(f"{counts.kept} of {counts.seen} kept")
        return counts

    def _check_drops(self, counts: Counts) -> None:
        limit = self.config.max_drop_fraction
        dropped = counts.seen - counts.kept
        if limit is not None and counts.seen and dropped > limit * counts.seen:
            worst = max(counts.dropped, key=lambda reason: counts.dropped[reason])
            raise CheckFailed(
                f"curate {self.config.name}: {dropped} of {counts.seen} rows dropped, more than max_drop_fraction "
                f"{limit} allows; most often {worst} ({counts.dropped[worst]}); see {self.folder}/00000.parquet"
            )


def _facts(row: Mapping[str, Any]) -> Row:
    """A row of a URL table as the row checks want it."""
    columns = {name.removeprefix("src_"): value for name, value in row.items() if name.startswith("src_")}
    return Row(row["url"], row["domain"], row["caption"], row["licence"], columns, row["language"])


def _told(table: pa.Table, rules: CaptionRules) -> pa.Table:
    """The rows with their languages, where the recipe asks for some."""
    if rules.languages is None:
        return table
    return tell_languages(table, [*rules.languages, *rules.language_candidates], rules.trust_column)
