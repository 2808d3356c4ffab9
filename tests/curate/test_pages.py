"""Clips on pages, found by yt-dlp behind a proxy that guards it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_media import clip

from curate.hostile import Hostile, hostile_server, redirect_to
from owl3.curate.address import GuardedResolver, parse_resolve
from owl3.curate.download import Downloader
from owl3.curate.limits import DownloadConfig
from owl3.curate.pages import _single_file, check_installed, find_clip
from owl3.curate.response import Failed
from owl3.curate.spool import Outcome, Spool
from owl3.errors import ConfigError

pytest.importorskip("yt_dlp", reason="needs: pip install 'owl3[pages]'")
pytestmark = pytest.mark.processes

HOST = "pages.owl3.test"
PAGE = b"<html><head><title>A boat</title></head><body><video src='/boat.mp4'></video></body></html>"


@pytest.fixture
def web() -> Iterator[Hostile]:
    with hostile_server() as web:
        yield web


def resolver(web: Hostile) -> GuardedResolver:
    return GuardedResolver(["*.owl3.test"], parse_resolve({"*.owl3.test": f"127.0.0.1:{web.port}"}))


def test_the_clip_of_a_page_is_fetched_under_all_guards(web: Hostile, tmp_path: Path) -> None:
    data = clip(tmp_path / "boat.mp4").read_bytes()
    web.page("/watch", PAGE, Content_Type="text/html")
    web.page("/boat.mp4", data, Content_Type="video/mp4")
    config = DownloadConfig(allow_private_hosts=("*.owl3.test",), page_hosts=(HOST,), contact="https://owl3.test/about")

    async def fetch() -> Outcome:
        where = {"*.owl3.test": f"127.0.0.1:{web.port}"}
        async with Downloader(config, kind="video", resolve=where) as downloader:
            with Spool(tmp_path / "spool") as spool:
                return await downloader.fetch(f"http://{HOST}/watch", spool)

    outcome = asyncio.run(fetch())
    assert (outcome.reason, outcome.final_url) == (None, f"http://{HOST}/boat.mp4")
    assert outcome.facts is not None and outcome.facts["frames"] == 20
    assert all("owl3" in agent for agent in web.agents)  # yt-dlp, too, says who it fetches for


def test_a_page_that_leads_inside_is_refused(web: Hostile) -> None:
    web.special["/watch"] = redirect_to("http://169.254.169.254/latest")
    with pytest.raises(Failed, match=r"169\.254\.169\.254 is at") as failed:
        asyncio.run(find_clip(f"http://{HOST}/watch", resolver(web), "owl3"))
    assert failed.value.reason == "private_address"


def test_a_page_without_a_clip_has_none(web: Hostile) -> None:
    web.page("/text", b"<html><body>words</body></html>", Content_Type="text/html")
    with pytest.raises(Failed) as failed:
        asyncio.run(find_clip(f"http://{HOST}/text", resolver(web), "owl3"))
    assert failed.value.reason == "not_a_video"


def test_a_missing_yt_dlp_is_told_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'owl3\[pages\]'"):
        check_installed()


@pytest.mark.parametrize("said", [b"", b"null", b"[]", b"{", b'{"url": 7}', b'{"entries": []}', b"\xff"])
def test_whatever_the_tool_says_a_page_without_a_clip_is_counted(said: bytes) -> None:
    with pytest.raises(Failed) as failed:
        _single_file(said)
    assert failed.value.reason == "not_a_video"
