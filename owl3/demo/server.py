"""The small web that the demo's corpus lives on: many hosts, one process, on 127.0.0.1 only, bounded in time.

    python -m owl3.demo.server FOLDER [--port 0] [--lifetime-s 900]

Which host is meant stands in the Host header, as everywhere; the fetcher is told that `*.owl3.test` is this address.
The first line on stdout is the port. `--log FILE` keeps one JSON line per request.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO
from urllib.parse import unquote

from aiohttp import web

from owl3 import lifeline
from owl3.demo.faults import ROBOTS_TXT
from owl3.demo.routes import Route, read_mounts, read_routes
from owl3.errors import Interrupted

ADDRESS = "127.0.0.1"
LIFETIME_S = 900.0
DRIP_S = 0.5
"""A dripping connection sends one byte in this time."""

CONTENT_TYPES = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".mp4": "video/mp4"}


class Site:
    """Answers requests as the routes of one folder say.

    Args:
        folder: Holds `routes.jsonl` and the files it names, and `mounts.json` for hosts that serve a whole folder.
        log: Where one JSON line per request goes.
    """

    def __init__(self, folder: Path, log: TextIO | None = None) -> None:
        self.folder = folder
        self.routes = read_routes(folder / "routes.jsonl")
        self.mounts = read_mounts(folder)
        self.times_asked: Counter[tuple[str, str]] = Counter()
        self.log = log

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Handle one request."""
        place = (request.host.partition(":")[0], request.rel_url.raw_path)
        self.times_asked[place] += 1
        if self.log is not None:
            entry = {"host": place[0], "path": place[1], "user_agent": request.headers.get("User-Agent", "")}
            self.log.write(json.dumps(entry) + "\n")
            self.log.flush()
        if place[1] == "/robots.txt":
            text = ROBOTS_TXT.get(place[0])
            return web.Response(text=text) if text else web.Response(status=404)
        route = self.routes.get(place) or self._mounted(place[0], unquote(place[1]))
        if route is None:
            return web.Response(status=404)
        if route.behaviour == "status" or (route.behaviour == "busy_once" and self.times_asked[place] == 1):
            return web.Response(status=route.status if route.behaviour == "status" else 503)
        if route.behaviour == "redirect":
            return web.Response(status=302, headers={"Location": route.target})
        if route.behaviour in ("stall", "drip"):
            return await self._hold(request, route)
        return web.Response(body=self._body(route), headers={**route.headers, "Content-Type": _content_type(route)})

    def _mounted(self, host: str, path: str) -> Route | None:
        """The file below a mounted folder that a path means, if there is one; never one outside of it."""
        if host not in self.mounts:
            return None
        top = Path(self.mounts[host]).resolve()
        file = (top / path.lstrip("/")).resolve()
        return (
            Route(url=f"http://{host}{path}", file=str(file)) if file.is_relative_to(top) and file.is_file() else None
        )

    async def _hold(self, request: web.Request, route: Route) -> web.StreamResponse:
        """Promise a body, then send nothing (stall) or next to nothing (drip) until the other side goes away."""
        body = self._body(route)
        response = web.StreamResponse(headers={"Content-Type": _content_type(route), "Content-Length": str(len(body))})
        await response.prepare(request)
        for i in range(len(body)):
            if route.behaviour == "drip":
                await response.write(body[i : i + 1])
            await asyncio.sleep(DRIP_S)
        return response

    def _body(self, route: Route) -> bytes:
        return (self.folder / route.file).read_bytes()


async def serve(site: Site, port: int, lifetime_s: float) -> None:
    """Serve until the lifetime ends, and say on stdout which port was taken."""
    app = web.Application()
    app.router.add_route("GET", "/{path:.*}", site.answer)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, ADDRESS, port).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        await asyncio.sleep(lifetime_s)
    finally:
        await runner.cleanup()


@contextmanager
def running(folder: Path, lifetime_s: float = LIFETIME_S) -> Iterator[str]:
    """Serve a folder from a process of its own; yields "127.0.0.1:PORT" and stops the server at the end.

    The server also ends with this process, however that ends, and after `lifetime_s`.

    Raises:
        Interrupted: it did not start; its own words are on stderr.
    """
    command = [sys.executable, "-m", "owl3.demo.server", str(folder), "--lifetime-s", str(lifetime_s)]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(lifeline.wrap(command), stdout=subprocess.PIPE, env=environment, start_new_session=True)
    try:
        assert process.stdout is not None
        port = process.stdout.readline().strip()
        if not port.isdigit():
            raise Interrupted(f"the demo's server for {folder} did not start (exit code {process.wait()})")
        yield f"{ADDRESS}:{int(port)}"
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def main(arguments: list[str] | None = None) -> int:
    """Run the server from a command line."""
    parser = argparse.ArgumentParser(prog="owl3.demo.server", description=__doc__)
    parser.add_argument("folder", type=Path, help="corpus folder with routes.jsonl")
    parser.add_argument("--port", type=int, default=0, help="0 takes any free port")
    parser.add_argument("--lifetime-s", type=float, default=LIFETIME_S)
    parser.add_argument("--log", type=Path, help="append one JSON line per request to this file")
    options = parser.parse_args(arguments)
    log = options.log.open("a", encoding="utf-8") if options.log else None
    site = Site(options.folder, log)
    try:
        asyncio.run(serve(site, options.port, options.lifetime_s))
    except KeyboardInterrupt:
        return 0
    finally:
        if log is not None:
            log.close()
    return 0


def _content_type(route: Route) -> str:
    return CONTENT_TYPES.get(Path(route.file).suffix.lower(), "application/octet-stream")


if __name__ == "__main__":
    sys.exit(main())
