"""Politeness and patience per host: how many at once, how fast, and when to give a host up.

The circuit breaker opens on a host that has never answered: after `dead_host_failures` of its URLs failed without any
answer, the rest fail at once as `dead_host` instead of waiting for their deadlines. A URL that stalled for a whole
timeout counts from its first attempt on; others (refused, no such name: a matter of milliseconds) count when their
retries are used up. So a host that swallows requests costs one timeout, and one that restarts has its seconds.

A host that answered some of its URLs is never given up, so which rows are dropped does not depend on the order in which
they were tried; and when a host turns out dead, its earlier failures are counted under `dead_host` too
(`owl3/curate/overview.py`).

A corpus has millions of hosts, most of them with one URL. So what is held per host goes when nobody asks it any more
and nothing has to be waited for; that it has answered stays as a few bits of a filter of fixed size.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import islice

from pydantic import Field

from owl3.config import Config

NO_ANSWER = frozenset({"timeout", "connection_error", "dns_error", "tls_error", "dead_host"})
"""Failures in which the host did not answer at all."""

_FEW_HOSTS = 4_096
"""With fewer, nothing is let go."""
_MAX_FAILING = 1_000_000
"""Hosts without an answer that are remembered; one that is forgotten is asked anew, and ends the same way."""
_FILTER_BITS, _FILTER_HASHES = 1 << 27, 4

_NOT_ASKED = frozenset({"bad_url", "blocklisted", "private_address", "engine_error"})


def is_answer(reason: str | None) -> bool:
    """Does a fetch that ended with `reason` (None: success) show that its host is alive?"""
    return reason not in NO_ANSWER and reason not in _NOT_ASKED


class HostConfig(Config):
    """How each host is treated."""

    connections_per_host: int = Field(default=8, ge=1)
    requests_per_s: float = Field(default=0.0, ge=0)
    """Requests started per second and host; 0 sets no limit beyond robots.txt's Crawl-delay."""
    max_crawl_delay_s: float = Field(default=10.0, ge=0)
    """A longer Crawl-delay is honoured up to here."""
    max_retry_after_s: float = Field(default=60.0, ge=0)
    """A host that answers with Retry-After is asked nothing for so long, at most this."""
    dead_host_failures: int = Field(default=5, ge=1)


@dataclass(slots=True)
class _Host:
    slots: asyncio.Semaphore
    interval_s: float
    users: int = 0
    next_start: float = 0.0
    paused_until: float = 0.0


class Hosts:
    """State per host, kept while the fetch runs: in full while somebody asks it, in little after that."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._hosts: dict[str, _Host] = {}
        self._sweep_at = _FEW_HOSTS
        self._failures: dict[str, int] = {}
        """URLs that ended without an answer, of hosts that never gave one."""
        self._answered = _Seen()

    def __len__(self) -> int:
        """Hosts about which more is held than whether they answered."""
        return len(self._hosts.keys() | self._failures.keys())

    def _get(self, host: str) -> _Host:
        state = self._hosts.get(host)
        if state is None:
            if len(self._hosts) >= self._sweep_at:
                self._sweep()
            interval_s = 1.0 / self._config.requests_per_s if self._config.requests_per_s else 0.0
            state = _Host(asyncio.Semaphore(self._config.connections_per_host), interval_s)
            self._hosts[host] = state
        return state

    def _sweep(self) -> None:
        """Let go of hosts that nobody asks and that may be asked again at once: met again, they start afresh."""
        now = time.monotonic()
        self._hosts = {
            host: state
            for host, state in self._hosts.items()
            if state.users or max(state.next_start, state.paused_until) > now
        }
        self._sweep_at = max(_FEW_HOSTS, 2 * len(self._hosts))

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Hold one of the host's connections."""
        state = self._get(host)
        state.users += 1
        try:
            async with state.slots:
                yield
        finally:
            state.users -= 1

    async def turn(self, host: str) -> None:
        """Wait until one more request may start: no faster than the host's rate, nor while it asked for a pause.

        Nobody waits for a host that has been given up: it will not be asked.
        """
        if self.is_dead(host):
            return
        state = self._get(host)
        start = max(state.next_start, time.monotonic())
        state.next_start = start + state.interval_s
        while (wait_s := max(start, state.paused_until) - time.monotonic()) > 0:
            await asyncio.sleep(wait_s)

    def slow_down(self, host: str, crawl_delay_s: float) -> None:
        """Take a Crawl-delay of robots.txt into account."""
        if crawl_delay_s:
            state = self._get(host)
            state.interval_s = max(state.interval_s, min(crawl_delay_s, self._config.max_crawl_delay_s))

    def pause(self, host: str, seconds: float) -> None:
        """Start nothing on this host for a while (Retry-After)."""
        if seconds:
            state = self._get(host)
            pause_s = min(seconds, self._config.max_retry_after_s)
            state.paused_until = max(state.paused_until, time.monotonic() + pause_s)

    def is_dead(self, host: str) -> bool:
        """Has it been given up?"""
        return self._failures.get(host, 0) >= self._config.dead_host_failures

    def record(self, host: str, reason: str | None) -> None:
        """Note how a URL of this host ended."""
        if is_answer(reason):
            self._failures.pop(host, None)
            self._answered.add(host)
        elif reason in NO_ANSWER and host not in self._answered:
            if len(self._failures) >= _MAX_FAILING:
                for oldest in list(islice(self._failures, _MAX_FAILING // 2)):
                    del self._failures[oldest]
            self._failures[host] = self._failures.get(host, 0) + 1


class _Seen:
    """Names seen, as a Bloom filter: of 6 million, one in 1,500 others seems seen too, in 16 MB.

    A dead host that seems to have answered is only asked longer: each of its URLs waits for its own timeout and is
    counted as `dead_host` in the end all the same.
    """

    def __init__(self) -> None:
        self._bits = bytearray(_FILTER_BITS // 8)

    def add(self, name: str) -> None:
        for place in _places(name):
            self._bits[place >> 3] |= 1 << (place & 7)

    def __contains__(self, name: str) -> bool:
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(name))


def _places(name: str) -> Iterator[int]:
    """The bits that stand for a name; they need not be the same in another process."""
    for salt in range(_FILTER_HASHES):
        yield hash((salt, name)) % _FILTER_BITS
