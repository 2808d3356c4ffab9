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
import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib import metadata
from typing import Literal, Self
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from pydantic import Field, field_validator
from yarl import URL

from owl3.config import Config
from owl3.curate.address import GuardedResolver, Lookup, PrivateAddress, host_matches, parse_resolve
from owl3.curate.hostfiles import HostFiles
from owl3.curate.hosts import HostConfig, Hosts, is_answer
from owl3.curate.inspector import Finish, Inspectors, Looking
from owl3.curate.pages import find_clip
from owl3.curate.resize import Resizing
from owl3.curate.response import BodyDecoder, Failed, check_status, network_failure
from owl3.curate.rights import RightsConfig, Verdict, check_headers
from owl3.curate.sources.columns import encodable
from owl3.curate.spool import Body, Outcome, Spool
from owl3.media import IMAGE_FORMATS, MAX_PIXELS
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
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 16


class DownloadConfig(Config):
    """Limits of one fetch. `timeout` and `retries` are img2dataset's flags, and mean what they mean there."""

    contact: str = ""
    """Mail address or page where a site's owner reaches whoever runs this; part of the user agent."""
    agent: str = Field(default="owl3", pattern=r"^[A-Za-z0-9_-]+$")
    """Product token: what robots.txt and X-Robots-Tag would name."""
    timeout: float = Field(default=10.0, gt=0)
    """Seconds for connecting, and between two reads."""
    deadline_s: float = Field(default=60.0, gt=0)
    """Seconds for a URL altogether: redirects, retries and pauses included; waiting for its host's turn is not."""
    retries: int = Field(default=2, ge=0)
    backoff_s: float = Field(default=1.0, ge=0)
    """Pause before the first retry; doubles each time."""
    max_bytes: int = Field(default=32_000_000, gt=0)
    min_bytes_per_s: float = Field(default=1_000.0, ge=0)
    min_rate_after_s: float = Field(default=5.0, ge=0)
    """The minimum rate counts from here on."""
    max_redirects: int = Field(default=5, ge=0)
    max_pixels: int = Field(default=MAX_PIXELS, gt=0)
    formats: tuple[str, ...] = IMAGE_FORMATS
    decode_deadline_s: float = Field(default=20.0, gt=0)
    allow_private_hosts: tuple[str, ...] = ()
    """Host names or patterns that may have addresses which are not public."""
    block_domains: tuple[str, ...] = ()
    """Domains never asked, with all their subdomains."""
    page_hosts: tuple[str, ...] = ()
    """Hosts (or patterns) whose URLs are pages with a clip: yt-dlp says where it is. For clips; needs `owl3[pages]`."""
    hosts: HostConfig = HostConfig()
    rights: RightsConfig = RightsConfig()

    @field_validator("formats")
    @classmethod
    def _are_known(cls, formats: tuple[str, ...]) -> tuple[str, ...]:
        unknown = set(formats) - set(IMAGE_FORMATS)
        if unknown:
            raise ValueError(f"unknown formats {', '.join(sorted(unknown))}; known: {', '.join(IMAGE_FORMATS)}")
        return formats

    @property
    def user_agent(self) -> str:
        """Who fetches, and whom to write to."""
        version = metadata.version("owl3")
        return f"{self.agent}/{version} (+{self.contact})" if self.contact else f"{self.agent}/{version}"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    url: str
    body: bytes
    verdict: Verdict
    address: str


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
        self._files = HostFiles(config.rights, config.agent, config.deadline_s, self._read_file)
        self._in_flight: dict[tuple[int, str], asyncio.Future[Outcome]] = {}
        self._looking = Looking(kind, config.max_pixels, config.formats, resizing, finish)
        self._inspectors = Inspectors(self._looking, processes, config.decode_deadline_s)
        self._resolver = GuardedResolver(config.allow_private_hosts, parse_resolve(resolve or {}), lookup)
        self._tls = tls

    @property
    def finishes_pictures(self) -> bool:
        """Is nothing left to img2dataset?"""
        return self._looking.kind == "image" and self._looking.finish == "all"

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,  # the guard has its own, of checked addresses
            limit=0,  # img2dataset's threads and the hosts' slots are the limit
            ssl=self._tls or True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            headers={"User-Agent": self._config.user_agent, "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=self._config.timeout, sock_read=self._config.timeout
            ),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """End what is in flight, which leaves no outcome: to be cut off by us is no fault of the server's."""
        flying = list(self._in_flight.values())
        for fetch in flying:
            fetch.cancel()
        await asyncio.gather(*flying, return_exceptions=True)
        await self._session.close()
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
            self._check_url(url)
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

    def _fetched(self, key: str, answer: _Answer, attempts: int) -> Outcome:
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

    async def _get(self, url: str) -> _Answer:
        """One attempt: follow redirects, each hop under all guards."""
        hops: list[str] = []
        try:
            return await self._follow(url, hops)
        except Failed as error:
            error.redirected = bool(hops)
            raise

    async def _follow(self, url: str, hops: list[str]) -> _Answer:
        last = Verdict("none", "")
        is_page = self._kind == "video" and host_matches(urlsplit(url).hostname or "", self._config.page_hosts)
        for _ in range(self._config.max_redirects + 1):
            self._check_url(url)
            if self._asks_host_files:
                last = await self._check_host_files(url)
            if is_page:
                url, is_page = await find_clip(url, self._resolver, self._config.user_agent), False
                continue
            try:
                answer = await self._request(url, self._config.max_bytes, check_rights=True)
            except Failed as error:
                error.verdict = error.verdict or last
                raise
            if answer.status not in _REDIRECTS:
                break
            self._hosts.record(urlsplit(url).hostname or "", None)
            hops.append(url)
            url = _target(url, answer)
        else:
            raise Failed("too_many_redirects", f"more than {self._config.max_redirects} redirects")
        return replace(answer, verdict=answer.verdict if answer.verdict.signal != "none" else last)

    def _check_url(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname or "", parts.port
        except ValueError as error:
            raise Failed("bad_url", str(error)) from error
        if parts.scheme not in ("http", "https") or not host:
            raise Failed("bad_url", f"not an http(s) URL: {url[:200]}")
        if host_matches(host, [p for d in self._config.block_domains for p in (d, f"*.{d}")]):
            raise Failed("blocklisted", f"{host} is on the recipe's list of blocked domains")
        if ":" in host or host.replace(".", "").isdecimal():  # aiohttp asks no resolver for literal addresses
            try:
                self._resolver.check(host, host)
            except PrivateAddress as error:
                raise Failed("private_address", str(error)) from error

    async def _check_host_files(self, url: str) -> Verdict:
        """Ask what the host's robots.txt and tdmrep.json say about a URL."""
        verdict = await self._files.check(url)
        if verdict.reason:
            raise Failed(verdict.reason, f"{verdict.signal}: {verdict.value}", verdict=verdict)
        return verdict

    async def _read_file(self, url: str, max_bytes: int) -> bytes:
        """A file of a host's own or its first `max_bytes`, redirects followed; nobody's rights are asked for it."""
        for _ in range(self._config.max_redirects + 1):
            self._check_url(url)
            answer = await self._request(url, max_bytes, check_rights=False, cut=True)
            if answer.status not in _REDIRECTS:
                return answer.body
            url = _target(url, answer)
        raise Failed("too_many_redirects", f"more than {self._config.max_redirects} redirects")

    async def _request(self, url: str, max_bytes: int, check_rights: bool, cut: bool = False) -> _Answer:
        """One request, no redirect followed: a redirect's target comes back as the body.

        Args:
            cut: Take the beginning of a body that is too large, instead of refusing it.
        """
        try:
            async with self._session.get(URL(url, encoded=True), allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    place = response.headers["Location"].encode("utf-8", "surrogateescape")
                    return _Answer(response.status, url, place, _NONE, "")
                check_status(response)
                verdict = _NONE
                if check_rights:
                    verdict = check_headers(response.headers.items(), self._config.agent, self._config.rights)
                    if verdict.reason:
                        raise Failed(verdict.reason, f"{verdict.signal}: {verdict.value}", verdict=verdict)
                body = await self._read(response, max_bytes, cut)
                return _Answer(response.status, url, body, verdict, self._resolver.known_address(response.url.host))
        except PrivateAddress as error:
            raise Failed("private_address", str(error)) from error
        except aiohttp.ClientError as error:
            raise network_failure(error) from error
        except TimeoutError as error:
            raise Failed("timeout", f"no byte in {self._config.timeout} s") from error
        except (OSError, ValueError) as error:
            raise Failed("connection_error", f"{type(error).__name__}: {error}"[:200]) from error

    async def _read(self, response: aiohttp.ClientResponse, max_bytes: int, cut: bool) -> bytes:
        """Read a body under the byte cap and over the minimum rate."""
        announced = response.content_length or 0
        if announced > max_bytes and not cut:
            raise Failed("too_large", f"announces {announced} bytes, cap is {max_bytes}", status=response.status)
        config, clock, received = self._config, time.monotonic(), 0
        decoder = BodyDecoder(response.headers.get("Content-Encoding", ""), max_bytes, cut)
        async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
            received += len(chunk)
            if decoder.feed(chunk):
                break
            elapsed = time.monotonic() - clock
            if elapsed > config.min_rate_after_s and received < config.min_bytes_per_s * elapsed:
                raise Failed("too_slow", f"{received} bytes in {elapsed:.1f} s", status=response.status)
        body = decoder.finish()
        if not body:
            raise Failed("empty_body", "success without content", status=response.status)
        return body


_NONE = Verdict("none", "")


def _target(url: str, redirect: _Answer) -> str:
    """Where a redirect leads, spelt so that it can be asked: servers write any bytes there."""
    try:
        place = redirect.body.decode("utf-8")
    except UnicodeDecodeError:
        place = quote(redirect.body, safe=string.printable)
    try:
        return canonical_url(urljoin(url, place.strip()))
    except ValueError as error:
        raise Failed("bad_url", f"redirected to what is no URL: {error}") from error
