"""Fetch the rows of all shards that are not fetched yet: pictures by img2dataset through the gateway, clips by us.

With `engine.distributor: none` pictures go the way of clips: this process fetches them, its children resize them as
img2dataset would, and the bytes are the same.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.curate.download import Downloader
from owl3.curate.engine import EngineConfig
from owl3.curate.fetch import fetch_shards
from owl3.curate.gateway import Gateway
from owl3.curate.limits import DownloadConfig
from owl3.curate.pages import check_installed
from owl3.curate.publish import ShardFiles
from owl3.progress import Progress
from owl3.shards import write_table

_SHARDS_AT_ONCE = 2


def fetch_all(
    shards: Sequence[ShardFiles],
    media: str,
    download: DownloadConfig,
    engine: EngineConfig,
    *,
    resolve: Mapping[str, str],
    progress: Progress,
) -> None:
    """Fetch what is missing; returns when every row has an outcome.

    Raises:
        InputError: img2dataset is missing or keeps failing.
        ConfigError: yt-dlp is missing, and the recipe names page hosts.
    """
    if download.page_hosts and media == "video":
        check_installed()
    sizes = {files.shard: pq.read_metadata(files.fetch).num_rows for files in shards}
    pending = [files for files in shards if sizes[files.shard] and not _is_fetched(files)]
    if not pending:
        return
    progress.start("fetch", sum(sizes[files.shard] for files in pending))
    by_us = media == "video" or engine.distributor == "none"
    opened = partial(
        Downloader,
        download,
        kind="image" if media == "image" else "video",
        resizing=engine.resizing if media == "image" else None,
        finish=engine.finish,
        resolve=resolve,
        processes=engine.processes_count,
    )
    work = pending[0].work
    with Gateway(opened, work / "fetch", work / "spools", engine.gateway_host) as gateway:
        if by_us:
            at_once = engine.thread_count * (engine.processes_count if media == "image" else 1)
            gateway.run(lambda downloader: OwnFetch(gateway, downloader, at_once, progress).run(pending))
        else:
            names = [files.shard for files in pending]
            fetch_shards(work, names, engine, gateway, progress.advance)
    progress.finish()


def _is_fetched(files: ShardFiles) -> bool:
    """Whether a shard is fetched, by us or by img2dataset."""
    return _mark(files).is_file() or files.engine.is_file()


def _mark(files: ShardFiles) -> Path:
    """The file whose presence says that we fetched a shard."""
    return files.work / "fetched" / f"{files.shard}.parquet"


class OwnFetch:
    """Fetches shards without img2dataset: in their order, and of their rows only those in flight are held.

    The next shard begins while the last rows of one are waited for.
    """

    def __init__(self, gateway: Gateway, downloader: Downloader, at_once: int, progress: Progress) -> None:
        self._gateway = gateway
        self._downloader = downloader
        self._progress = progress
        self._slots = asyncio.Semaphore(at_once)
        self._shards = asyncio.Semaphore(_SHARDS_AT_ONCE)

    async def run(self, pending: Sequence[ShardFiles]) -> None:
        """Fetch all; what goes wrong in one row ends the others and is raised."""
        try:
            async with asyncio.TaskGroup() as flights:
                for files in pending:
                    await self._shards.acquire()
                    await self._begin(files, flights)
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from failed

    async def _begin(self, files: ShardFiles, flights: asyncio.TaskGroup) -> None:
        """Send off a shard's rows, and again those that an earlier run left to img2dataset."""
        urls, spool = self._gateway.open_shard(files.shard)
        left = {outcome.url_id for outcome in spool.outcomes() if outcome.is_for_engine}
        if left and self._downloader.finishes_pictures:
            spool.forget(left)
        missing = len(urls)

        async def fetch(url: str) -> None:
            nonlocal missing
            await self._downloader.fetch(url, spool)
            self._progress.advance()
            self._slots.release()
            missing -= 1
            if not missing:
                self._end(files, len(urls))

        for url in urls:
            await self._slots.acquire()
            flights.create_task(fetch(url))

    def _end(self, files: ShardFiles, num_rows: int) -> None:
        self._gateway.close_shard(files.shard)
        write_table(_mark(files), pa.table({"rows": [num_rows]}))
        self._shards.release()
