"""One request to a stranger, under the guards that it needs by itself.

They are the URL's form, blocked domains, the address guard, TLS verification, the rights headers, and the byte cap and
minimum rate while the body arrives. Redirects are not followed: their target comes back, for whoever asks under which
rules it may be asked.
"""

import ssl
import string
import time
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

import aiohttp
from yarl import URL

from owl3.curate.address import GuardedResolver, PrivateAddress, host_matches
from owl3.curate.limits import DownloadConfig
from owl3.curate.response import BodyDecoder, Failed, check_status, network_failure
from owl3.curate.rights import Verdict, check_headers
from owl3.samples import canonical_url

_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 16
_NONE = Verdict("none", "")


@dataclass(frozen=True, slots=True)
class Answer:
    """A body that came within its limits, or where a redirect leads (`target`)."""

    status: int
    url: str
    body: bytes = b""
    verdict: Verdict = _NONE
    address: str = ""
    target: str | None = None


class Requests:
    """Sends requests; used from one event loop.

    Args:
        tls: An SSL context that trusts more than the system does; a seam for tests.
    """

    def __init__(self, config: DownloadConfig, resolver: GuardedResolver, tls: ssl.SSLContext | None = None) -> None:
        self._config = config
        self._resolver = resolver
        self._tls = tls

    def open(self) -> None:
        """Begin; called inside the loop."""
        connector = aiohttp.TCPConnector(
            resolver=self._resolver,
            use_dns_cache=False,  # the guard has its own, of checked addresses
            limit=0,  # who asks, and the hosts' slots, are the limit
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

    async def close(self) -> None:
        """End all connections."""
        await self._session.close()

    def check_url(self, url: str) -> None:
        """Raise `Failed` for a URL that must not be asked, whatever its host says."""
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

    async def read_file(self, url: str, max_bytes: int) -> bytes:
        """A file of a host's own or its first `max_bytes`, redirects followed; nobody's rights are asked for it."""
        for _ in range(self._config.max_redirects + 1):
            self.check_url(url)
            answer = await self.get(url, max_bytes, check_rights=False, cut=True)
            if answer.target is None:
                return answer.body
            url = answer.target
        raise Failed("too_many_redirects", f"more than {self._config.max_redirects} redirects")

    async def get(self, url: str, max_bytes: int, *, check_rights: bool = True, cut: bool = False) -> Answer:
        """One request.

        Args:
            cut: Take the beginning of a body that is too large, instead of refusing it.

        Raises:
            Failed: there is no body; the reason says why.
        """
        try:
            async with self._session.get(URL(url, encoded=True), allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    return Answer(response.status, url, target=_target(url, response.headers["Location"]))
                check_status(response)
                verdict = _NONE
                if check_rights:
                    verdict = check_headers(response.headers.items(), self._config.agent, self._config.rights)
                    if verdict.reason:
                        raise Failed(verdict.reason, f"{verdict.signal}: {verdict.value}", verdict=verdict)
                body = await self._read(response, max_bytes, cut)
                return Answer(response.status, url, body, verdict, self._resolver.known_address(response.url.host))
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


def _target(url: str, location: str) -> str:
    """Where a redirect leads, spelt so that it can be asked: servers write any bytes there."""
    place = location.encode("utf-8", "surrogateescape")
    try:
        text = place.decode("utf-8")
    except UnicodeDecodeError:
        text = quote(place, safe=string.printable)
    try:
        return canonical_url(urljoin(url, text.strip()))
    except ValueError as error:
        raise Failed("bad_url", f"redirected to what is no URL: {error}") from error
