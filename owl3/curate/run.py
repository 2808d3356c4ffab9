"""From a URL table to shards: fetch → rights → decide → deduplicate → decontaminate, every row kept or counted.

    shards/NAME/_work/     rows, spools, img2dataset's shards, ratings; removed when the shards are final
    shards/NAME/           00000.tar 00000.parquet 00000_evidence.parquet 00000_stats.json … manifest.json

Each step leaves files and looks at files, so a killed run goes on where it was, and gives the same bytes.
"""

import asyncio
import logging
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock
from pydantic import Field

from owl3.config import Config
from owl3.curate.contamination import Benchmark, find_contaminated, fingerprint
from owl3.curate.decide import (
    ImageRules,
    Row,
    RowRules,
    VideoRules,
    clip_checks,
    first_reason,
    image_checks,
    row_checks,
)
from owl3.curate.dedup import DedupConfig, group_equal, group_near
from owl3.curate.download import DownloadConfig, Downloader
from owl3.curate.fetch import EngineConfig, fetch_shards
from owl3.curate.gateway import Gateway
from owl3.curate.hosts import NO_ANSWER
from owl3.curate.publish import ShardFiles, Verdict, judge, publish
from owl3.curate.sources.prepare import iter_rows, source_folder
from owl3.errors import CheckFailed, ConfigError
from owl3.manifest import Counts, Manifest, find_current, lock_path, now, read_manifest, tool_versions, write_manifest
from owl3.progress import SILENT, Progress
from owl3.shards import write_table

logger = logging.getLogger(__name__)

_WORK = "_work"
_VOLATILE = ("*_evidence.parquet", "*_stats.json")


class CurateConfig(Config):
    """One set of shards: from which source, fetched how, decided how."""

    name: str = Field(pattern=r"[A-Za-z0-9][A-Za-z0-9._-]*")
    source: str
    fetch: DownloadConfig = DownloadConfig()
    engine: EngineConfig = EngineConfig()
    rows: RowRules = RowRules()
    image: ImageRules = ImageRules()
    video: VideoRules = VideoRules()
    dedup: DedupConfig = DedupConfig()
    decontaminate: tuple[Benchmark, ...] = ()
    max_drop_fraction: float | None = Field(default=None, ge=0, le=1)
    """With more dropped than this the run ends as a failed check, with all evidence left in place."""

    def recipe(self) -> dict[str, Any]:
        """What the manifest records: all that shapes the output, so the digest is the same at any parallelism."""
        return self.model_dump(mode="json") | {"engine": self.engine.recipe()}


def shards_folder(workspace: Path, name: str) -> Path:
    """Where a curated corpus lies."""
    return workspace / "shards" / name


def curate(
    config: CurateConfig, workspace: Path, *, resolve: Mapping[str, str] | None = None, progress: Progress = SILENT
) -> Manifest:
    """Make `shards/NAME`, or return its manifest when it is done already; a killed run is resumed.

    Args:
        resolve: Where some hosts really are ("*.owl3.test" to "127.0.0.1:8123"), as curl's `--resolve`. It says
            where, not what, so it is no part of the recipe or the digest.

    Raises:
        InputError: the source is not prepared, or img2dataset is missing or keeps failing.
        ConfigError: the recipe can't be run.
        CheckFailed: more rows were dropped than `max_drop_fraction` allows.
    """
    folder = shards_folder(workspace, config.name)
    source = read_manifest(source_folder(workspace, config.source))
    current = find_current(folder, config.recipe(), [source])
    if current is not None:
        shutil.rmtree(folder / _WORK, ignore_errors=True)
        return current
    if not config.fetch.contact and not config.fetch.allow_private_hosts:
        raise ConfigError(f"curate {config.name}: fetch.contact must say how site owners reach you (mail or page)")
    with FileLock(lock_path(folder)):
        return _Run(config, workspace, source=source, resolve=dict(resolve or {}), progress=progress).run()


class _Run:
    """The steps of one run, in order; each does only what is missing."""

    def __init__(
        self,
        config: CurateConfig,
        workspace: Path,
        *,
        source: Manifest,
        resolve: Mapping[str, str],
        progress: Progress,
    ) -> None:
        self.config = config
        self.workspace = workspace
        self.folder = folder = shards_folder(workspace, config.name)
        self.work = folder / _WORK
        self.source = source
        self.media: str = source.stats["media"]
        self.resolve = resolve
        self.progress = progress
        self.started = now()

    def run(self) -> Manifest:
        """All steps."""
        benchmarks = [fingerprint(benchmark, self.workspace) for benchmark in self.config.decontaminate]
        shards = self._split()
        self._fetch(shards)
        self._judge(shards)
        verdicts = self._look_at_all(shards, benchmarks)
        counts = self._publish(shards, verdicts)
        self._check_drops(counts)
        tools = tool_versions("aiohttp", "protego", "pillow", "numpy", "pyarrow", "av")
        manifest = write_manifest(
            self.folder,
            kind="shards",
            name=self.config.name,
            counts=counts,
            recipe=self.config.recipe(),
            parents=[self.source],
            stats={
                "media": self.media,
                "source": self.config.source,
                "shards": len(shards),
                "decontaminated_against": {prints.name: prints.describe() for prints in benchmarks},
            },
            tools=tools | ({"img2dataset": "1.47.0"} if self.media == "image" else {}),
            volatile=_VOLATILE,
            exclude=[f"{_WORK}/*"],
            started=self.started,
        )
        shutil.rmtree(self.work)
        return manifest

    def _files(self, shard: str) -> ShardFiles:
        return ShardFiles(self.work, shard)

    def _split(self) -> list[str]:
        """Cut the source into shards and decide what can be decided before anything is fetched."""
        shards = []
        checks = row_checks(self.config.rows)
        tables = iter_rows(
            source_folder(self.workspace, self.config.source), self.config.engine.number_sample_per_shard
        )
        for number, table in enumerate(tables):
            shard = f"{number:05d}"
            shards.append(shard)
            files = self._files(shard)
            if files.fetch.is_file():
                continue
            reasons = [first_reason(checks, _facts(row)) for row in table.to_pylist()]
            write_table(files.rows, table.append_column("reason", pa.array(reasons, pa.string())))
            wanted = [index for index, reason in enumerate(reasons) if reason is None]
            urls = table.column("url").take(pa.array(wanted, pa.int64()))
            write_table(files.fetch, pa.table({"index": pa.array(wanted, pa.int64()), "url": urls}))
        return shards

    def _fetch(self, shards: Sequence[str]) -> None:
        """Fetch what is not fetched yet; img2dataset makes the pictures' shards."""
        sizes = {shard: pq.read_metadata(self._files(shard).fetch).num_rows for shard in shards}
        done = self._files("").engine.parent if self.media == "image" else self.work / "fetched"
        done.mkdir(parents=True, exist_ok=True)
        pending = [shard for shard in shards if sizes[shard] and not (done / f"{shard}.parquet").is_file()]
        if not pending:
            return
        self.progress.start(f"fetch {self.config.name}", sum(sizes[shard] for shard in pending))
        opened = partial(
            Downloader,
            self.config.fetch,
            kind="image" if self.media == "image" else "video",
            resolve=self.resolve,
            processes=self.config.engine.processes_count,
        )
        with Gateway(opened, self.work / "fetch", self.work / "spools") as gateway:
            if self.media == "image":
                fetch_shards(
                    self.work, pending, self.config.engine, gateway, lambda shard: self.progress.advance(sizes[shard])
                )
            else:
                for shard in pending:
                    gateway.run(partial(self._fetch_clips, gateway, shard))
                    gateway.release(shard)
                    write_table(done / f"{shard}.parquet", pa.table({"rows": [sizes[shard]]}))
        self.progress.finish()

    async def _fetch_clips(self, gateway: Gateway, shard: str, downloader: Downloader) -> None:
        """Fetch a shard's clips; img2dataset knows pictures only."""
        urls, spool = gateway.open_shard(shard)
        slots = asyncio.Semaphore(self.config.engine.thread_count)

        async def one(url: str) -> None:
            async with slots:
                await downloader.fetch(url, spool)
            self.progress.advance()

        await asyncio.gather(*(one(url) for url in urls))

    def _judge(self, shards: Sequence[str]) -> None:
        checks: list[Any] = image_checks(self.config.image) if self.media == "image" else clip_checks(self.config.video)
        for shard in shards:
            judge(self._files(shard), self.media, checks)

    def _look_at_all(self, shards: Sequence[str], benchmarks: Sequence[Any]) -> dict[str, Verdict]:
        """Decide what needs a view of the whole corpus; by sample id."""
        table = pa.concat_tables(pq.read_table(self._files(shard).rating) for shard in shards)
        rows: dict[str, list[Any]] = {name: table.column(name).to_pylist() for name in table.column_names}
        verdicts = {rows["sample_id"][row]: Verdict("dead_host") for row in _dead_host_rows(rows, self.config.fetch)}
        alive = [row for row, reason in enumerate(rows["reason"]) if reason is None]
        alive.sort(key=lambda row: rows["sample_id"][row])  # the smallest id is kept
        digests = [rows["media_sha256"][row] for row in alive]
        has_phash = np.array([rows["phash"][row] is not None for row in alive], dtype=bool)
        phash = np.array([int(rows["phash"][row] or "0", 16) for row in alive], dtype=np.uint64)
        for index, name in find_contaminated(digests, phash, has_phash, benchmarks).items():
            verdicts[rows["sample_id"][alive[index]]] = Verdict("contaminated", benchmark=name)
        clean = [index for index, row in enumerate(alive) if rows["sample_id"][row] not in verdicts]
        ids = [rows["sample_id"][alive[index]] for index in clean]
        captions = [rows["caption"][alive[index]] for index in clean]
        for index, kept, reason in _duplicates(
            self.config.dedup, [digests[i] for i in clean], phash[clean], has_phash[clean], captions
        ):
            verdicts[ids[index]] = Verdict(reason, duplicate_of=ids[kept])
        return verdicts

    def _publish(self, shards: Sequence[str], verdicts: Mapping[str, Verdict]) -> Counts:
        self.progress.start(f"write {self.config.name}", len(shards))
        parts = []
        for shard in shards:
            files, agent = self._files(shard), self.config.fetch.user_agent
            parts.append(
                publish(
                    files,
                    self.folder,
                    media=self.media,
                    source=self.config.source,
                    user_agent=agent,
                    verdicts=verdicts,
                )
            )
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


def _dead_host_rows(rows: Mapping[str, list[Any]], config: DownloadConfig) -> list[int]:
    """Rows of hosts that answered nothing, when there are enough of them to call the host dead.

    Whether a row was tried before or after the breaker opened depends on timing; that its host is dead does not.
    """
    silent: dict[str, list[int]] = defaultdict(list)
    answered: set[str] = set()
    for row, (host, reason) in enumerate(zip(rows["domain"], rows["reason"], strict=True)):
        if reason in NO_ANSWER:
            silent[host].append(row)
        elif rows["answered"][row]:
            answered.add(host)
    return [
        row
        for host, members in silent.items()
        if host not in answered and len(members) >= config.hosts.dead_host_failures
        for row in members
    ]


def _duplicates(
    config: DedupConfig,
    digests: Sequence[str],
    phash: np.ndarray[Any, np.dtype[np.uint64]],
    has_phash: np.ndarray[Any, np.dtype[np.bool_]],
    captions: Sequence[str],
) -> Iterator[tuple[int, int, str]]:
    """Duplicates among rows in order of preference: (row, row kept instead, reason)."""
    texts = np.unique(np.array(captions, dtype=object), return_inverse=True)[1] if captions else np.zeros(0, np.int64)
    exact = np.arange(len(digests), dtype=np.int64)
    if config.exact != "off" and digests:
        keys = [f"{digest} {text}" for digest, text in zip(digests, texts, strict=True)]
        exact = group_equal(np.array(keys if config.exact == "media_and_caption" else digests))
    survivors = np.flatnonzero((exact == np.arange(len(digests))) & has_phash)
    for row in np.flatnonzero(exact != np.arange(len(digests))):
        yield int(row), int(exact[row]), "duplicate_exact"
    if config.near_radius is None or not len(survivors):
        return
    same_text = texts[survivors] if config.near_caption == "same" else None
    roots = group_near(phash[survivors], config.near_radius, same_text)
    for index in np.flatnonzero(roots != np.arange(len(survivors))):
        yield int(survivors[index]), int(survivors[roots[index]]), "duplicate_near"
