"""The local door: who may come in, and what happens when the house itself is broken."""

import errno
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from owl3.curate.gateway import Gateway
from owl3.shards import write_table


class _FullDisk:
    """A downloader that can't store what it fetched."""

    async def __aenter__(self) -> "_FullDisk":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def fetch(self, *_: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")


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
