"""The local door: who may come in, and what happens when the house itself is broken."""

import errno
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from curate.hostile import picture
from owl3.curate.gateway import Gateway
from owl3.curate.spool import Body, Outcome, Spool
from owl3.media import open_image
from owl3.samples import url_id
from owl3.shards import write_table


class _FullDisk:
    """A downloader that can't store what it fetched."""

    async def __aenter__(self) -> "_FullDisk":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetch(self, *_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")


class _Known:
    """A downloader that has fetched everything already."""

    def __init__(self, *outcomes: Outcome) -> None:
        self._outcomes = {outcome.url_id: outcome for outcome in outcomes}

    async def __aenter__(self) -> "_Known":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetch(self, url: str, spool: Spool) -> Outcome:
        return spool.get(url_id(url)) or spool.append(self._outcomes[url_id(url)], Body(picture(1)))


def _status(url: str) -> int:
    with pytest.raises(urllib.error.HTTPError) as answer:
        urllib.request.urlopen(url, timeout=10)
    return answer.value.code


def test_what_breaks_inside_is_raised_once_and_no_answer_looks_like_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_table(tmp_path / "fetch" / "00000.parquet", pa.table({"url": ["http://a.example/1.jpg"]}))
    with Gateway(_FullDisk, tmp_path / "fetch", tmp_path / "spools") as gateway:  # type: ignore[arg-type]
        gateway.check()
        url = gateway.url("00000", 0)
        assert _status(url.replace("/00000/", "x/00000/")) == 404
        gateway.check()
        assert _status(url) == 500
        with pytest.raises(OSError, match="No space left"):
            gateway.check()
        assert gateway.answered == 0
    assert not caplog.records


def test_a_picture_that_is_finished_stays_here(tmp_path: Path) -> None:
    urls = ["http://a.example/1.jpg", "http://a.example/2.jpg"]
    write_table(tmp_path / "fetch" / "00000.parquet", pa.table({"url": urls}))
    known = _Known(Outcome(url_id(urls[0]), None, size=[96, 64]), Outcome(url_id(urls[1]), None))
    with Gateway(lambda: known, tmp_path / "fetch", tmp_path / "spools") as gateway:  # type: ignore[arg-type, return-value]
        answers = [urllib.request.urlopen(gateway.url("00000", row), timeout=10).read() for row in (0, 1)]
        kept = gateway.spool("00000").get(url_id(urls[0]))
        assert kept is not None and gateway.spool("00000").body(kept) == picture(1)
    assert open_image(answers[0]).size == (1, 1)
    assert answers[1] == picture(1)
