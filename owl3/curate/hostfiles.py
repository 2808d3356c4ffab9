"""What a host's own files say before anything else of it is fetched: robots.txt and tdmrep.json, asked once per origin.

    GET /robots.txt                 who may fetch what, how fast; AIPREF `Content-Usage` lines
    GET /.well-known/tdmrep.json    which paths are reserved from text and data mining (W3C TDM Reservation Protocol)

Both are asked together, so a host costs one round trip before its first picture. What an error means is the recipe's
decision for robots.txt (`rights.robots_refuse_on`); a tdmrep.json that is missing or unreadable reserves nothing.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from owl3.curate.hosts import is_answer
from owl3.curate.response import Failed
from owl3.curate.rights import MiningRules, RightsConfig, Robots, Verdict, robots_from_status

_ROBOTS_MAX_BYTES = 512_000  # RFC 9309 asks for at least 500 KiB; of a longer one the beginning counts
_MINING_MAX_BYTES = 512_000
_ORIGINS_CACHED = 20_000
_HELD_BYTES = 8_000_000
"""Of files that are held; what is made of a robots.txt takes forty times its bytes."""
_LONG_BYTES = 32_000
"""A longer robots.txt (0.5 s for the longest) is read in a thread, so that other fetches go on meanwhile."""

Read = Callable[[str, int], Awaitable[bytes]]
"""Fetches a URL of at most so many bytes, redirects followed, under all guards; raises `Failed`."""

_Files = tuple[Robots, MiningRules]


class HostFiles:
    """The files of every origin that was asked, kept while they are fresh.

    Args:
        agent: Our product token, as robots.txt would name us.
        deadline_s: For one file altogether.
        read: How a file is fetched.
    """

    def __init__(self, config: RightsConfig, agent: str, deadline_s: float, read: Read) -> None:
        self._config = config
        self._agent = agent
        self._deadline_s = deadline_s
        self._read = read
        self._files: dict[str, asyncio.Future[_Files]] = {}
        self._expire: dict[str, float] = {}
        self._sizes: dict[str, int] = {}
        self._held_bytes = 0

    async def check(self, url: str) -> Verdict:
        """What the files of the URL's origin say about it."""
        robots, mining = await self._of_origin(url)
        path = urlsplit(url).path or "/"
        verdict = robots.check(url, path, self._config) if self._config.robots else Verdict("none", "")
        if verdict.reason is None:
            verdict = mining.check(path) or verdict
        return verdict

    async def crawl_delay_s(self, url: str) -> float:
        """The seconds between requests that the URL's origin asks for."""
        robots, _ = await self._of_origin(url)
        return robots.crawl_delay_s()

    async def _of_origin(self, url: str) -> _Files:
        parts = urlsplit(url)
        origin = f"{parts.scheme}://{parts.netloc}"
        if self._expire.get(origin, 0.0) < time.monotonic():
            if len(self._files) >= _ORIGINS_CACHED:
                self._forget()
            self._expire[origin] = time.monotonic() + self._config.robots_cache_s
            self._files[origin] = asyncio.ensure_future(self._fetch(origin))
        return await asyncio.shield(self._files[origin])

    def _forget(self) -> None:
        """Drop the older half of what is known, so that a corpus of a million hosts does not fill the memory."""
        for origin in list(self._files)[: -(-len(self._files) // 2)]:
            if self._files[origin].done():
                del self._files[origin], self._expire[origin]
                self._held_bytes -= self._sizes.pop(origin, 0)

    async def _fetch(self, origin: str) -> _Files:
        robots, mining = await asyncio.gather(self._robots(origin), self._mining(origin))
        self._held_bytes += robots.num_bytes + mining.num_bytes - self._sizes.get(origin, 0)
        self._sizes[origin] = robots.num_bytes + mining.num_bytes
        if self._held_bytes > _HELD_BYTES:  # many long ones may come at once
            self._forget()
        return robots, mining

    async def _robots(self, origin: str) -> Robots:
        if not self._config.robots:
            return Robots("", self._agent)
        try:
            async with asyncio.timeout(self._deadline_s):
                body = await self._read(f"{origin}/robots.txt", _ROBOTS_MAX_BYTES)
                text = body.decode("utf-8", "replace")
                if len(body) > _LONG_BYTES:
                    return await asyncio.to_thread(Robots, text, self._agent)
                return Robots(text, self._agent)
        except (Failed, TimeoutError) as error:
            reason, status = ("timeout", None) if isinstance(error, TimeoutError) else (error.reason, error.status)
            if reason == "too_many_redirects":  # RFC 9309 §2.3.1.2: after five hops, as if absent
                status = 404
            if reason == "empty_body":
                return Robots("", self._agent)
            if status is not None:
                return robots_from_status(status, self._agent, self._config)
            if is_answer(reason):  # bytes that can't be read: like a server's error, not like a server that is away
                refused = "robots_unavailable" if "5xx" in self._config.robots_refuse_on else None
                return Robots("", self._agent, Verdict("robots.txt", f"unreadable ({reason})", refused))
            # No answer at all: the picture's own request fails the same way and says so better, unless policy refuses.
            refuse = "unreachable" in self._config.robots_refuse_on
            verdict = Verdict("robots.txt", f"unreachable ({reason})", "robots_unavailable" if refuse else None)
            return Robots("", self._agent, verdict)

    async def _mining(self, origin: str) -> MiningRules:
        if not self._config.tdm_reservation:
            return MiningRules(b"")
        try:
            async with asyncio.timeout(self._deadline_s):
                return MiningRules(await self._read(f"{origin}/.well-known/tdmrep.json", _MINING_MAX_BYTES))
        except (Failed, TimeoutError):
            return MiningRules(b"")
