"""Fetch the rows of all shards that are not fetched yet: pictures by img2dataset through the gateway, clips by us."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from owl3.curate.download import DownloadConfig, Downloader
from owl3.curate.fetch import EngineConfig, fetch_shards
from owl3.curate.gateway import Gateway
from owl3.curate.pages import check_installed
from owl3.curate.publish import ShardFiles
from owl3.progress import Progress
from owl3.shards import write_table


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
    pending = [files for files in shards if sizes[files.shard] and not _mark(files, media).is_file()]
    if not pending:
        return
    progress.start("fetch", sum(sizes[files.shard] for files in pending))
    opened = partial(
        Downloader,
        download,
        kind="image" if media == "image" else "video",
        leaves_alone=engine.leaves_alone if media == "image" else None,
        resolve=resolve,
        processes=engine.processes_count,
    )
    work = pending[0].work
    with Gateway(opened, work / "fetch", work / "spools", engine.gateway_host) as gateway:
        if media == "image":
            names = [files.shard for files in pending]
            fetch_shards(work, names, engine, gateway, lambda shard: progress.advance(sizes[shard]))
        else:
            for files in pending:
                gateway.run(partial(_fetch_clips, gateway, files.shard, engine.thread_count, progress))
                gateway.release(files.shard)
                write_table(_mark(files, media), pa.table({"rows": [sizes[files.shard]]}))
    progress.finish()


def _mark(files: ShardFiles, media: str) -> Path:
    """The file whose presence says that a shard is fetched."""
    return files.engine if media == "image" else files.work / "fetched" / f"{files.shard}.parquet"


async def _fetch_clips(gateway: Gateway, shard: str, at_once: int, progress: Progress, downloader: Downloader) -> None:
    """Fetch a shard's clips; img2dataset knows pictures only."""
    urls, spool = gateway.open_shard(shard)
    slots = asyncio.Semaphore(at_once)

    async def one(url: str) -> None:
        async with slots:
            await downloader.fetch(url, spool)
        progress.advance()

    await asyncio.gather(*(one(url) for url in urls))
