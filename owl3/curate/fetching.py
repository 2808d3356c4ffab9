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
            gateway.run(partial(_fetch_shards, gateway, pending, at_once, progress))
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


async def _fetch_shards(
    gateway: Gateway, pending: Sequence[ShardFiles], at_once: int, progress: Progress, downloader: Downloader
) -> None:
    """Fetch shards one after the other; the next one begins while the last rows of one are waited for."""
    slots, open_shards = asyncio.Semaphore(at_once), asyncio.Semaphore(_SHARDS_AT_ONCE)

    async def fetch(files: ShardFiles) -> None:
        async with open_shards:
            await _fetch_rows(gateway, files, slots, progress, downloader)

    tasks = [asyncio.ensure_future(fetch(files)) for files in pending]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _fetch_rows(
    gateway: Gateway, files: ShardFiles, slots: asyncio.Semaphore, progress: Progress, downloader: Downloader
) -> None:
    """Fetch a shard's rows, and again those that an earlier run left to img2dataset."""
    urls, spool = gateway.open_shard(files.shard)
    left = {outcome.url_id for outcome in spool.outcomes() if outcome.is_for_engine}
    if left and downloader.finishes_pictures:
        spool.forget(left)

    async def one(url: str) -> None:
        async with slots:
            await downloader.fetch(url, spool)
        progress.advance()

    await asyncio.gather(*(one(url) for url in urls))
    gateway.close_shard(files.shard)
    write_table(_mark(files), pa.table({"rows": [len(urls)]}))
