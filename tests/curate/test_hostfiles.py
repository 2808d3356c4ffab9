"""What hosts say of themselves is asked once, and held in a memory that strangers can't fill."""

import asyncio
from collections import Counter

import pytest

from owl3.curate import hostfiles
from owl3.curate.hostfiles import HostFiles
from owl3.curate.response import Failed
from owl3.curate.rights import RightsConfig

ORIGINS = [f"http://h{number}.example" for number in range(40)]


def asked_again(robots: str, at_once: int = 1) -> int:
    """How many of 40 origins are asked for robots.txt a second time when all are visited twice, so many at once."""
    asked: Counter[str] = Counter()

    async def read(url: str, _: int) -> bytes:
        if not url.endswith("/robots.txt"):
            raise Failed("not_found", "HTTP 404", status=404)
        asked[url] += 1
        return robots.encode()

    async def run() -> None:
        files = HostFiles(RightsConfig(), "owl3", 10.0, read)
        slots = asyncio.Semaphore(at_once)

        async def visit(origin: str) -> None:
            async with slots:
                assert (await files.check(f"{origin}/a.jpg")).reason is None
                assert await files.crawl_delay_s(f"{origin}/b.jpg") == 3.0

        for _ in range(2):
            await asyncio.gather(*map(visit, ORIGINS))

    asyncio.run(run())
    return sum(count > 1 for count in asked.values())


def test_a_host_is_asked_once() -> None:
    assert asked_again("User-agent: *\nCrawl-delay: 3\n") == 0


@pytest.mark.parametrize("at_once", [1, 40])
def test_long_robots_files_are_forgotten_before_they_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    long = "User-agent: *\nCrawl-delay: 3\n" + "Disallow: /private\n" * 2_000
    monkeypatch.setattr(hostfiles, "_HELD_BYTES", 10 * len(long))
    assert asked_again(long, at_once) >= 30
