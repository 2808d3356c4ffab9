"""Find the clip on a page (youtube.com/watch …) with yt-dlp, which is then fetched like any other URL.

yt-dlp only says where the clip is: it runs in a child process with the URL's deadline, and everything it asks goes
through a proxy of ours on 127.0.0.1 that connects to checked addresses alone. What it names is fetched by
`download.py` under all guards. It is an optional extra: `pip install 'owl3[pages]'`.
"""

import asyncio
import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from owl3 import lifeline
from owl3.curate.address import GuardedResolver, PrivateAddress
from owl3.curate.response import Failed
from owl3.errors import ConfigError
from owl3.secrecy import bare_environment

FORMAT = "best[ext=mp4][protocol^=http]/best[protocol^=http]"
"""One file with picture (and sound, if any): what a plain GET can fetch."""

_HEAD_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 16
_REASONS = (
    (r"private video|sign in|login|members-only|confirm your age|HTTP Error 40[13]", "forbidden"),
    (r"unavailable|removed|does not exist|terminated|HTTP Error (404|410)", "not_found"),
    (r"HTTP Error 429", "rate_limited"),
    (r"HTTP Error 5\d\d", "server_error"),
    (r"timed out", "timeout"),
    (r"unsupported URL|no video|no formats|requested format", "not_a_video"),
)
"""What yt-dlp's message means; anything else is an `http_error`."""


def check_installed() -> None:
    """Make sure that yt-dlp is there, before any work.

    Raises:
        ConfigError: it is not.
    """
    if importlib.util.find_spec("yt_dlp") is None:
        raise ConfigError("fetch.page_hosts: needs yt-dlp; run: pip install 'owl3[pages]'")


async def find_clip(url: str, resolver: GuardedResolver, user_agent: str) -> str:
    """Where the clip of a page is.

    Raises:
        Failed: the page has none, or can't be read; the reason is one of the ledger's.
    """
    async with _Proxy(resolver) as proxy:
        child = await asyncio.create_subprocess_exec(
            *lifeline.wrap([sys.executable, "-m", "yt_dlp", *_options(proxy.port, user_agent), "--", url]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=bare_environment(),
        )
        try:
            out, errors = await child.communicate()
        finally:
            if child.returncode is None:  # the URL's deadline is over
                child.terminate()
                await child.wait()
    if proxy.refused:
        raise Failed("private_address", proxy.refused)
    if child.returncode:
        text = (errors.decode("utf-8", "replace").strip().splitlines() or ["no message"])[-1]
        reason = next((word for form, word in _REASONS if re.search(form, text, re.IGNORECASE)), "http_error")
        raise Failed(reason, f"yt-dlp: {text[-200:]}")
    return _single_file(out)


def _single_file(said: bytes) -> str:
    """The URL in what yt-dlp says of a page: an object, but for pages on which it finds nothing."""
    try:
        found = json.loads(said)
    except ValueError as error:
        raise Failed("not_a_video", f"yt-dlp says no JSON: {said[:100]!r}") from error
    if not isinstance(found, dict) or not isinstance(found.get("url"), str):
        raise Failed("not_a_video", "yt-dlp names no single file")
    return str(found["url"])


def _options(port: int, user_agent: str) -> list[str]:
    proxy = ["--proxy", f"http://127.0.0.1:{port}"]
    quiet = ["--ignore-config", "--no-cache-dir", "--no-playlist", "--no-warnings"]
    return [*proxy, *quiet, "--dump-single-json", "--format", FORMAT, "--user-agent", user_agent]


class _Proxy:
    """An HTTP proxy on 127.0.0.1 that connects to what the resolver allows, for as long as one child needs it."""

    def __init__(self, resolver: GuardedResolver) -> None:
        self._resolver = resolver
        self._open: set[asyncio.Task[None]] = set()
        self.refused = ""
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        try:
            with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                await self._pass_on(reader, writer)
        finally:
            self._open.discard(task)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: `CONNECT host:443`, or one request with a whole URL."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, version = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
        host, port = parts.hostname or "", parts.port or 80
        try:
            if ":" in host or host.replace(".", "").isdecimal():
                self._resolver.check(host, host)
            place = (await self._resolver.resolve(host, port))[0]
        except PrivateAddress as error:
            self.refused = str(error)
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        far_reader, far_writer = await asyncio.open_connection(place["host"], place["port"])
        try:
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, far_writer), _copy(far_reader, writer))
            else:
                path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                far_writer.write(_closing(head, f"{method} {path} {version}".encode()))
                # The answer must say that it is the connection's last: a client that does not know sends its next
                # request into a connection that is about to close.
                await asyncio.gather(_copy(reader, far_writer), _pass_answer_on(far_reader, writer))
        finally:
            far_writer.close()


async def _pass_answer_on(far_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await far_reader.readuntil(b"\r\n\r\n")
    writer.write(_closing(head, head.split(b"\r\n", 1)[0]))
    await _copy(far_reader, writer)


def _closing(head: bytes, first_line: bytes) -> bytes:
    """The head of a request or answer, with another first line, after which the connection closes."""
    lines = [
        line
        for line in head.split(b"\r\n")[1:-2]
        if not line.lower().startswith((b"connection:", b"keep-alive:", b"proxy-"))
    ]
    return b"\r\n".join([first_line, *lines, b"Connection: close", b"", b""])


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
