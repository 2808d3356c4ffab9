"""What a response means: a body within its cap, or the reason why there is none."""

import zlib
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

from owl3.curate.rights import Verdict


class Failed(Exception):
    """A fetch ended without a body; `reason` says how."""

    def __init__(self, reason: str, message: str, *, status: int | None = None, verdict: Verdict | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.status = status
        self.verdict = verdict
        self.retry_after_s = 0.0
        self.redirected = False  # the URL's own host did answer, whatever the next one did


class BodyDecoder:
    """Collect a body, undoing gzip or deflate if a server sends it unasked, never beyond the cap.

    Args:
        cut: Keep what fits of a larger body, instead of refusing it.
    """

    def __init__(self, encoding: str, max_bytes: int, cut: bool = False) -> None:
        self._max_bytes = max_bytes
        self._cut = cut
        self._body = bytearray()
        encoding = encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise Failed("http_error", f"unknown Content-Encoding {encoding[:40]!r}")
        self._inflate = zlib.decompressobj(wbits=47) if "gzip" in encoding or encoding == "deflate" else None

    def feed(self, chunk: bytes) -> bool:
        """Take a chunk; True when no more is needed. Raises `too_large` at the first byte over the cap."""
        if self._inflate is not None:
            try:
                chunk = self._inflate.decompress(chunk, self._max_bytes + 1 - len(self._body))
            except zlib.error as error:
                raise Failed("http_error", f"Content-Encoding does not match the body: {error}") from error
        self._body += chunk
        if len(self._body) <= self._max_bytes:
            return False
        if not self._cut:
            raise Failed("too_large", f"more than {self._max_bytes} bytes")
        del self._body[self._max_bytes :]
        return True

    def finish(self) -> bytes:
        """The whole body."""
        return bytes(self._body)


def check_status(response: aiohttp.ClientResponse) -> None:
    """Raise `Failed` for an answer that is no success."""
    status = response.status
    if 200 <= status < 300 and status != 206:
        return
    reason = {401: "forbidden", 403: "forbidden", 404: "not_found", 410: "not_found", 429: "rate_limited"}
    word = reason.get(status, "forbidden" if status == 451 else "server_error" if status >= 500 else "http_error")
    failed = Failed(word, f"HTTP {status}", status=status)
    if status in (429, 503):
        failed.retry_after_s = _retry_after_s(response.headers.get("Retry-After", ""))
    raise failed


def _retry_after_s(value: str) -> float:
    """Read Retry-After: seconds, or a date."""
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0


def network_failure(error: aiohttp.ClientError) -> Failed:
    """Name what went wrong on the way."""
    text = f"{type(error).__name__}: {error}"[:200]
    match error:
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return Failed("tls_error", text)
        case aiohttp.ClientConnectorDNSError():
            return Failed("dns_error", text)
        case aiohttp.ServerTimeoutError():
            return Failed("timeout", text)
        case aiohttp.ClientPayloadError():
            return Failed("wrong_length", text)
        case aiohttp.InvalidURL():
            return Failed("bad_url", text)
    return Failed("connection_error", text)
