"""Fetching without img2dataset: shards in their order, a few rows in memory, and no waiting for the last of one."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from owl3.curate.fetching import OwnFetch
from owl3.curate.gateway import Gateway
from owl3.curate.publish import ShardFiles
from owl3.curate.spool import Outcome, Spool
from owl3.progress import SILENT
from owl3.samples import url_id
from owl3.shards import write_table

ROWS, AT_ONCE = 200, 8


class Web:
    """A downloader that notes what it is asked for, and lets some URLs wait for others."""

    finishes_pictures = True

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.most_tasks = 0
        self.waits: dict[str, Callable[[], bool]] = {}

    async def __aenter__(self) -> "Web":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetch(self, url: str, spool: Spool) -> Outcome:
        self.asked.append(url)
        self.most_tasks = max(self.most_tasks, len(asyncio.all_tasks()))
        may_end = self.waits.get(url, lambda: True)
        while True:
            await asyncio.sleep(0)
            if may_end():
                return spool.get(url_id(url)) or spool.append(Outcome(url_id(url), "not_found"))


def url(shard: int, row: int) -> str:
    return f"http://a.example/{shard}/{row}"


def fetch(web: Web, work: Path) -> None:
    """Fetch three shards."""
    shards = [ShardFiles(work, f"{number:05d}") for number in range(3)]
    for number, files in enumerate(shards):
        write_table(files.fetch, pa.table({"url": [url(number, row) for row in range(ROWS)]}))
    with Gateway(lambda: web, work / "fetch", work / "spools") as gateway:  # type: ignore[arg-type, return-value]
        gateway.run(lambda downloader: OwnFetch(gateway, downloader, AT_ONCE, SILENT).run(shards))


def fetched(work: Path) -> list[str]:
    return sorted(path.stem for path in (work / "fetched").glob("*.parquet"))


def test_rows_are_asked_for_in_order_and_few_of_them_wait_in_memory(tmp_path: Path) -> None:
    web = Web()
    fetch(web, tmp_path)
    assert web.asked == [url(shard, row) for shard in range(3) for row in range(ROWS)]
    assert web.most_tasks < 2 * AT_ONCE
    assert fetched(tmp_path) == ["00000", "00001", "00002"]


def test_the_next_shard_begins_while_the_last_row_of_one_is_waited_for(tmp_path: Path) -> None:
    """It goes to its end, too; the one after it waits, so that not all of a corpus is open."""
    web = Web()
    seen: list[tuple[list[str], bool]] = []

    def second_is_done() -> bool:
        seen.append((fetched(tmp_path), url(2, 0) in web.asked))
        return seen[-1][0] == ["00001"]

    web.waits[url(0, 3)] = second_is_done
    fetch(web, tmp_path)
    assert not any(third_began for done, third_began in seen if not done)
    assert fetched(tmp_path) == ["00000", "00001", "00002"]


def test_what_breaks_in_one_row_ends_the_others_and_is_told_by_itself(tmp_path: Path) -> None:
    web = Web()

    def full() -> bool:
        raise OSError("No space left on device")

    web.waits[url(0, 5)] = full
    with pytest.raises(OSError, match="No space left"):
        fetch(web, tmp_path)
    assert len(web.asked) < ROWS
    assert fetched(tmp_path) == []
