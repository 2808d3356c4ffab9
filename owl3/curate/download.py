"""Fetch one URL from a stranger, politely, within limits, and say how it ended.

Around each request stand, in this order: the URL's form, blocked domains, the circuit breaker, robots.txt and
tdmrep.json, the address guard (at every redirect hop), TLS verification, the rights headers, the byte cap and minimum
rate while the body arrives, and the decoder. Transient failures are tried again with growing pauses; everything
together ends within `deadline_s`. The result is an `Outcome` with a reason of the ledger's list; nothing here raises
for what a server does.
"""

import asyncio
import logging
import ssl
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal, Self
from urllib.parse import urlsplit

from owl3.curate.address import GuardedResolver, Lookup, host_matches, parse_resolve
from owl3.curate.hostfiles import HostFiles
from owl3.curate.hosts import Hosts, is_answer
from owl3.curate.inspector import Finish, Inspectors, Looking
from owl3.curate.limits import DownloadConfig
from owl3.curate.pages import find_clip
from owl3.curate.request import Answer, Requests
from owl3.curate.resize import Resizing
from owl3.curate.response import Failed
from owl3.curate.rights import Verdict
from owl3.curate.sources.columns import encodable
from owl3.curate.spool import Body, Outcome, Spool
from owl3.samples import canonical_id, canonical_url
from owl3.secrecy import hide, hide_in_urls

logger = logging.getLogger(__name__)

TRANSIENT = frozenset(
    {
        "server_error",
        "rate_limited",
        "timeout",
        "too_slow",
        "wrong_length",
        "dns_error",
        "connection_error",
        "dead_host",
        "robots_unavailable",
        "empty_body",
        "engine_error",
    }
)
"""Reasons that another day may cure; `--retry` takes these rows again and no others."""

_RETRIED = TRANSIENT - {"dead_host", "robots_unavailable", "too_slow", "engine_error"}


class Downloader:
    """Fetches URLs into spools; one per run, used from one event loop.

    Args:
        kind: What the bodies must be.
        resizing: How pictures are stored.
        finish: Which of them are made so as they come (see `Looking`).
        resolve: Where some hosts really are, as curl's `--resolve` ("HOST": "ADDRESS:PORT").
        lookup: How names become addresses; a seam for tests.
        tls: An SSL context that trusts more than the system does; a seam for tests.
    """

    def __init__(
        self,
        config: DownloadConfig,
        *,
        kind: Literal["image", "video"] = "image",
        resizing: Resizing | None = None,
        finish: Finish = "untouched",
        resolve: Mapping[str, str] | None = None,
        processes: int = 1,
        lookup: Lookup | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._config = config
        self._kind: Literal["image", "video"] = kind
        self._hosts = Hosts(config.hosts)
        self._asks_host_files = config.rights.robots or config.rights.tdm_reservation
        self._in_flight: dict[tuple[int, str], asyncio.Future[Outcome]] = {}
        self._looking = Looking(kind, config.max_pixels, config.formats, resizing, finish)
        self._inspectors = Inspectors(self._looking, processes, config.decode_deadline_s)
        self._resolver = GuardedResolver(config.allow_private_hosts, parse_resolve(resolve or {}), lookup)
        self._requests = Requests(config, self._resolver, tls)
        self._files = HostFiles(config.rights, config.agent, config.deadline_s, self._requests.read_file)

    @property
    def finishes_pictures(self) -> bool:
        """Is nothing left to img2dataset?"""
        return self._looking.kind == "image" and self._looking.finish == "all"

    async def __aenter__(self) -> Self:
        self._requests.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is in flight, which leaves no outcome: to be cut off by us is no fault of the server's."""
        flying = list(self._in_flight.values())
        for fetch in flying:
            fetch.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        await self._requests.close()
        await self._inspectors.close()

    async def fetch(self, url: str, spool: Spool) -> Outcome:
        """Fetch a URL once per spool, however often it is asked for; its outcome is spooled when this returns."""
        canonical = canonical_url(url)
        key = canonical_id(canonical)
        known = spool.get(key)
        if known is not None:
            return known
        flight = (id(spool), key)
        waiting = self._in_flight.get(flight)
        if waiting is None:
            waiting = asyncio.ensure_future(self._fetch_new(key, canonical, spool))
            self._in_flight[flight] = waiting
            waiting.add_done_callback(lambda _: self._in_flight.pop(flight, None))
        return await asyncio.shield(waiting)

    async def _fetch_new(self, key: str, url: str, spool: Spool) -> Outcome:
        host = urlsplit(url).hostname or ""
        async with self._hosts.slot(host):
            await self._wait_for_turn(url, host)
            started, clock = datetime.now(UTC).isoformat(timespec="milliseconds"), time.monotonic()
            outcome, body = await self._try_all(key, url, host)
        seconds = round(time.monotonic() - clock, 3)
        if body is not None:
            outcome, body = await self._inspect(outcome, body)
        return spool.append(replace(outcome, started=started, seconds=seconds), body)

    async def _wait_for_turn(self, url: str, host: str) -> None:
        """Wait until the host may be asked, as often as its robots.txt wants it; so that is asked before all else."""
        try:
            self._requests.check_url(url)
        except Failed:
            return  # it will not be asked
        if self._asks_host_files and not self._hosts.is_dead(host):
            self._hosts.slow_down(host, await self._files.crawl_delay_s(url))
        await self._hosts.turn(host)

    async def _try_all(self, key: str, url: str, host: str) -> tuple[Outcome, Body | None]:
        """All attempts of one URL, within its deadline."""
        attempts, stalled = 0, False
        failed = Failed("timeout", f"no answer in {self._config.deadline_s} s")
        try:
            async with asyncio.timeout(self._config.deadline_s):
                while attempts <= self._config.retries:
                    if self._hosts.is_dead(host):
                        failed = Failed("dead_host", f"{host} has not answered any request")
                        break
                    attempts += 1
                    try:
                        answer = await self._get(url)
                    except Failed as error:
                        failed = error
                        if error.reason == "timeout" and not stalled:
                            self._hosts.record(host, "timeout")
                            stalled = True
                        self._hosts.pause(host, error.retry_after_s)
                        if error.reason not in _RETRIED or attempts > self._config.retries:
                            break
                        pause_s = max(self._config.backoff_s * 2 ** (attempts - 1), error.retry_after_s)
                        await asyncio.sleep(pause_s)
                        await self._hosts.turn(host)
                    else:
                        self._hosts.record(host, None)
                        return self._fetched(key, answer, attempts), Body(answer.body)
        except TimeoutError:
            if failed.reason not in _RETRIED or not attempts:
                failed = Failed("timeout", f"not done in {self._config.deadline_s} s")
        if not stalled or is_answer(failed.reason):
            self._hosts.record(host, failed.reason)
        verdict = failed.verdict or Verdict("none", "")
        return Outcome(
            url_id=key,
            reason=failed.reason,
            message=encodable(hide(str(failed))),
            http_status=failed.status,
            redirected=failed.redirected,
            rights_signal=verdict.signal,
            rights_value=encodable(verdict.value),
            attempts=attempts,
        ), None

    def _fetched(self, key: str, answer: Answer, attempts: int) -> Outcome:
        return Outcome(
            url_id=key,
            reason=None,
            http_status=answer.status,
            final_url=hide_in_urls(answer.url),  # a store signs where it redirects to
            rights_signal=answer.verdict.signal,
            rights_value=encodable(answer.verdict.value),
            attempts=attempts,
            address=answer.address,
        )

    async def _inspect(self, outcome: Outcome, body: Body) -> tuple[Outcome, Body | None]:
        """Let a child decode the body; what can't be decoded is not spooled."""
        found = await self._inspectors.inspect(body.data)
        if found.reason:
            return replace(outcome, reason=found.reason, message=found.message), None
        return replace(outcome, facts=found.facts, size=found.size), Body(body.data, found.made)

    async def _get(self, url: str) -> Answer:
        """One attempt: follow redirects, each hop under all guards."""
        hops: list[str] = []
        try:
            return await self._follow(url, hops)
        except Failed as error:
            error.redirected = bool(hops)
            raise

    async def _follow(self, url: str, hops: list[str]) -> Answer:
        last = Verdict("none", "")
        is_page = self._kind == "video" and host_matches(urlsplit(url).hostname or "", self._config.page_hosts)
        for _ in range(self._config.max_redirects + 1):
            self._requests.check_url(url)
            if self._asks_host_files:
                last = await self._check_host_files(url)
            if is_page:
                url, is_page = await find_clip(url, self._resolver, self._config.user_agent), False
                continue
            try:
                answer = await self._requests.get(url, self._config.max_bytes)
            except Failed as error:
                error.verdict = error.verdict or last
                raise
            if answer.target is None:
                break
            self._hosts.record(urlsplit(url).hostname or "", None)
            hops.append(url)
            url = answer.target
        else:
            raise Failed("too_many_redirects", f"more than {self._config.max_redirects} redirects")
        return replace(answer, verdict=answer.verdict if answer.verdict.signal != "none" else last)

    async def _check_host_files(self, url: str) -> Verdict:
        """Ask what the host's robots.txt and tdmrep.json say about a URL."""
        verdict = await self._files.check(url)
        if verdict.reason:
            raise Failed(verdict.reason, f"{verdict.signal}: {verdict.value}", verdict=verdict)
        return verdict
