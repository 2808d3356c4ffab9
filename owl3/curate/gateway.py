"""The local door through which img2dataset fetches: all guards on this side, its resizing and sharding on that side.

img2dataset is given `http://127.0.0.1:PORT/TOKEN/SHARD/ROW` instead of a stranger's URL. The gateway looks the real URL
up, fetches it with every guard of `download.py`, spools what came, and answers with bytes that have proved to be a
decodable, upright picture, or with 4xx and the drop reason. What is finished already (a picture that is stored as it
came, or that had to be turned) stays in the spool; the answer is a stand-in of one pixel. It serves rows of the table
only, under a token that changes with each run, so no other program can fetch through it.
"""

import asyncio
import secrets
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import wait
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow.parquet as pq
from aiohttp import web
from PIL import Image

from owl3.curate.download import Downloader
from owl3.curate.spool import Outcome, Spool
from owl3.media import encode_jpeg
from owl3.stopping import check_stop

_START_S = 30.0
_END_S = 0.5
"""What is still asked for when the gateway closes waits no longer for its answer: whoever asked is gone."""
_POLL_S = 0.1


class Gateway:
    """A server in a thread with an event loop of its own.

    Args:
        open_downloader: Makes the downloader inside the gateway's loop.
        tables: Row tables by shard, `00000.parquet` …, each with a `url` column.
        spools: Folder of the spools, one per shard.
        host: Address to listen on; img2dataset on other machines (ray, pyspark) needs one that they reach.
    """

    def __init__(
        self, open_downloader: Callable[[], Downloader], tables: Path, spools: Path, host: str = "127.0.0.1"
    ) -> None:
        self._host = host
        self._open_downloader = open_downloader
        self._tables = tables
        self._spools = spools
        self._urls: dict[str, list[str]] = {}
        self._open: dict[str, Spool] = {}
        self._stand_in = encode_jpeg(Image.new("RGB", (1, 1)))
        self._token = secrets.token_urlsafe(12)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fetch-gateway", daemon=True)
        self._fatal: BaseException | None = None
        self.answered = 0
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(_START_S)
        except BaseException:
            self._stop_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(_START_S)
        self._stop_loop()

    def url(self, shard: str, row: int) -> str:
        """Where a row of a shard's table is fetched."""
        return f"http://{self._host}:{self.port}/{self._token}/{shard}/{row}"

    def check(self) -> None:
        """Raise what went wrong inside the gateway, if anything did: a bug of ours, or a full disk."""
        if self._fatal is not None:
            raise self._fatal

    def spool(self, shard: str) -> Spool:
        """The open spool of a shard; reads are safe from any thread once its rows are answered."""

        async def opened() -> Spool:
            return self.open_shard(shard)[1]

        return asyncio.run_coroutine_threadsafe(opened(), self._loop).result(_START_S)

    def release(self, shard: str) -> None:
        """Close a shard's spool: nobody will ask for its rows again."""

        async def close() -> None:
            self.close_shard(shard)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(_START_S)

    def run(self, work: Callable[[Downloader], Awaitable[None]]) -> None:
        """Run a coroutine with the downloader inside the gateway's loop and wait for it (videos, which go past
        img2dataset).

        Raises:
            Stopped: what waits shall stop; the coroutine is cancelled.
        """

        async def call() -> None:
            await work(self._downloader)

        running = asyncio.run_coroutine_threadsafe(call(), self._loop)
        try:
            while not wait([running], timeout=_POLL_S).done:
                check_stop()
        except BaseException:
            running.cancel()
            raise
        running.result()

    def open_shard(self, shard: str) -> tuple[list[str], Spool]:
        """Load a shard's URLs and spool; called inside the loop."""
        if shard not in self._open:
            table = pq.read_table(self._tables / f"{shard}.parquet", columns=["url"])
            self._urls[shard] = table.column("url").to_pylist()
            self._open[shard] = Spool(self._spools / shard)
        return self._urls[shard], self._open[shard]

    async def _start(self) -> None:
        self._downloader = await self._open_downloader().__aenter__()
        app = web.Application()
        app.router.add_get("/{token}/{shard:[0-9]+}/{row:[0-9]+}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=_END_S)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, 0, backlog=1024)
        await site.start()
        self.port = int(self._runner.addresses[0][1])

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._downloader.__aexit__()
        for shard in list(self._open):
            self.close_shard(shard)

    def close_shard(self, shard: str) -> None:
        """As `release`; called inside the loop."""
        self._urls.pop(shard, None)
        spool = self._open.pop(shard, None)
        if spool is not None:
            spool.close()

    def _stop_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_S)
        self._loop.close()

    async def _answer(self, request: web.Request) -> web.Response:
        if not secrets.compare_digest(request.match_info["token"], self._token):
            return web.Response(status=404, reason="unknown")
        try:
            urls, spool = self.open_shard(request.match_info["shard"])
            outcome = await self._downloader.fetch(urls[int(request.match_info["row"])], spool)
            response = self._respond(outcome, spool)
        except Exception as error:  # noqa: BLE001  raised by check(): this row gets no answer that looks like one
            self._fatal = self._fatal or error
            return web.Response(status=500, reason="gateway_error")
        self.answered += 1
        return response

    def _respond(self, outcome: Outcome, spool: Spool) -> web.Response:
        if outcome.reason is not None:
            return web.Response(status=404, reason=outcome.reason)
        body = spool.body(outcome) if outcome.size is None else self._stand_in
        return web.Response(body=body, content_type="application/octet-stream")
