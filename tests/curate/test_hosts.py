"""Millions of hosts, and each is treated as if it were the only one."""

import asyncio
import time
import tracemalloc

import pytest

from owl3.curate.hosts import HostConfig, Hosts

MANY = 20_000


async def ask(hosts: Hosts, host: str, reason: str | None = None) -> None:
    async with hosts.slot(host):
        await hosts.turn(host)
        hosts.record(host, reason)


async def ask_many(hosts: Hosts, reason: str | None = None) -> None:
    for number in range(MANY):
        await ask(hosts, f"h{number}.example", reason)


def test_what_is_held_does_not_grow_with_the_hosts_that_were_asked() -> None:
    hosts = Hosts(HostConfig())
    tracemalloc.start()
    asyncio.run(ask_many(hosts))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(hosts) < MANY / 4
    assert grown < MANY * 100, "half a kilobyte each would be held for them"


def test_hosts_that_never_answer_are_given_up_however_many_there_are() -> None:
    hosts = Hosts(HostConfig(dead_host_failures=2))
    for _ in range(2):
        assert not hosts.is_dead("h0.example")
        asyncio.run(ask_many(hosts, "timeout"))
    assert all(hosts.is_dead(f"h{number}.example") for number in range(MANY))


def test_a_host_that_answered_long_ago_is_not_given_up() -> None:
    hosts = Hosts(HostConfig(dead_host_failures=2))

    async def run() -> None:
        await ask(hosts, "alive.example", "not_found")
        await ask_many(hosts)
        for _ in range(5):
            await ask(hosts, "alive.example", "connection_error")

    asyncio.run(run())
    assert not hosts.is_dead("alive.example")


@pytest.mark.parametrize("how", ["rate", "pause", "slot"])
def test_a_host_that_has_to_be_waited_for_is_not_forgotten_meanwhile(how: str) -> None:
    config = HostConfig(connections_per_host=1)
    hosts = Hosts(config)

    async def run() -> None:
        if how == "rate":
            hosts.slow_down("busy.example", 4.0)
            await ask(hosts, "busy.example")
        elif how == "pause":
            hosts.pause("busy.example", 4.0)
        async with hosts.slot("busy.example" if how == "slot" else "other.example"):
            began = time.monotonic()
            await ask_many(hosts)
            asking = asyncio.ensure_future(ask(hosts, "busy.example"))
            await asyncio.wait([asking], timeout=0.05)
            assert not asking.done() or time.monotonic() - began > 3.9
        asking.cancel()

    asyncio.run(run())
