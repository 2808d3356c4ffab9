"""Politeness and patience per host: how many at once, how fast, and when to give a host up.

The circuit breaker opens on a host that has never answered: after `dead_host_failures` of its URLs failed without any
answer, the rest fail at once as `dead_host` instead of waiting for their deadlines. A URL that stalled for a whole
timeout counts from its first attempt on; others (refused, no such name: a matter of milliseconds) count when their
retries are used up. So a host that swallows requests costs one timeout, and one that restarts has its seconds.

A host that answered some of its URLs is never given up, so which rows are dropped does not depend on the order in which
they were tried; and when a host turns out dead, its earlier failures are counted under `dead_host` too
(`owl3/curate/overview.py`).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from pydantic import Field

from owl3.config import Config

NO_ANSWER = frozenset({"timeout", "connection_error", "dns_error", "tls_error", "dead_host"})
"""Failures in which the host did not answer at all."""

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
    next_start: float = 0.0
    interval_s: float = 0.0
    paused_until: float = 0.0
    failures: int = 0
    answered: bool = False


class Hosts:
    """State per host, kept while the fetch runs."""

    def __init__(self, config: HostConfig) -> None:
        self._config = config
        self._hosts: dict[str, _Host] = {}

    def _get(self, host: str) -> _Host:
        state = self._hosts.get(host)
        if state is None:
            interval_s = 1.0 / self._config.requests_per_s if self._config.requests_per_s else 0.0
            state = _Host(asyncio.Semaphore(self._config.connections_per_host), interval_s=interval_s)
            self._hosts[host] = state
        return state

    @asynccontextmanager
    async def slot(self, host: str) -> AsyncIterator[None]:
        """Hold one of the host's connections, entered no faster than its rate allows, nor while it asked for a pause.

        Nobody waits for a host that has been given up: it will not be asked.
        """
        state = self._get(host)
        async with state.slots:
            if not self.is_dead(host):
                start = max(state.next_start, time.monotonic())
                state.next_start = start + state.interval_s
                while (wait_s := max(start, state.paused_until) - time.monotonic()) > 0:
                    await asyncio.sleep(wait_s)
            yield

    def slow_down(self, host: str, crawl_delay_s: float) -> None:
        """Take a Crawl-delay of robots.txt into account."""
        state = self._get(host)
        state.interval_s = max(state.interval_s, min(crawl_delay_s, self._config.max_crawl_delay_s))

    def pause(self, host: str, seconds: float) -> None:
        """Start nothing on this host for a while (Retry-After)."""
        state = self._get(host)
        pause_s = min(seconds, self._config.max_retry_after_s)
        state.paused_until = max(state.paused_until, time.monotonic() + pause_s)

    def is_dead(self, host: str) -> bool:
        """Has it been given up?"""
        state = self._hosts.get(host)
        return state is not None and not state.answered and state.failures >= self._config.dead_host_failures

    def record(self, host: str, reason: str | None) -> None:
        """Note how a URL of this host ended."""
        state = self._get(host)
        if reason in NO_ANSWER:
            state.failures += 1
        elif is_answer(reason):
            state.answered = True
