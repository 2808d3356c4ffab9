"""One URL, one hostile server: every misdeed ends in time and under its own reason."""

import asyncio
import gzip
import io
import ssl
import subprocess
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate.hostile import (
    Hostile,
    drip,
    endless,
    flaky,
    hostile_server,
    picture,
    raw_answer,
    redirect_to,
    short_body,
    stall,
)
from owl3.curate.download import Downloader
from owl3.curate.engine import EngineConfig
from owl3.curate.limits import DownloadConfig
from owl3.curate.spool import Outcome, Spool

HOST = "photos.owl3.test"
FAST: dict[str, Any] = {
    "contact": "https://owl3.test/contact",
    "timeout": 0.3,
    "deadline_s": 1.0,
    "retries": 1,
    "backoff_s": 0.01,
    "min_rate_after_s": 0.2,
    "max_bytes": 200_000,
    "allow_private_hosts": ("*.owl3.test",),
}


@pytest.fixture
def web() -> Iterator[Hostile]:
    with hostile_server() as world:
        yield world


def fetch(web: Hostile, folder: Path, *urls: str, **settings: Any) -> list[Outcome]:
    """Fetch all URLs at once; paths stand for URLs of HOST."""
    options = {name: settings.pop(name) for name in ("kind", "lookup", "tls", "resizing") if name in settings}
    config = DownloadConfig(**(FAST | settings))

    async def run() -> list[Outcome]:
        resolve = {"*.owl3.test": f"127.0.0.1:{web.port}"}
        with Spool(folder) as spool:
            async with Downloader(config, resolve=resolve, **options) as downloader:
                full = [url if "://" in url else f"http://{HOST}{url}" for url in urls]
                return await asyncio.gather(*(downloader.fetch(url, spool) for url in full))

    return asyncio.run(run())


def reason(web: Hostile, folder: Path, url: str, **settings: Any) -> str | None:
    return fetch(web, folder, url, **settings)[0].reason


def test_a_picture_is_spooled_with_its_facts(web: Hostile, tmp_path: Path) -> None:
    data = picture(1)
    web.page("/a.jpg", data)
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert outcome.reason is None and outcome.num_bytes == len(data)
    assert outcome.facts is not None and (outcome.facts["width"], outcome.facts["height"]) == (96, 64)
    assert (outcome.rights_signal, outcome.rights_value) == ("robots.txt", "404: none")
    assert outcome.address == "127.0.0.1" and outcome.started
    with Spool(tmp_path) as spool:
        assert spool.body(outcome) == data


def test_the_user_agent_says_who_and_whom_to_write_to(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", picture(1))
    fetch(web, tmp_path, "/a.jpg")
    (agent,) = web.agents
    assert agent.startswith("owl3/") and "https://owl3.test/contact" in agent


@pytest.mark.parametrize(
    ("status", "expected", "asked"),
    [
        (404, "not_found", 1),
        (410, "not_found", 1),
        (403, "forbidden", 1),
        (451, "forbidden", 1),
        (418, "http_error", 1),
        (206, "http_error", 1),
        (500, "server_error", 2),
        (429, "rate_limited", 2),
    ],
)
def test_only_transient_answers_are_asked_twice(
    web: Hostile, tmp_path: Path, status: int, expected: str, asked: int
) -> None:
    web.page("/a.jpg", b"no", status)
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert (outcome.reason, outcome.http_status) == (expected, status)
    assert web.asked[f"{HOST}/a.jpg"] == outcome.attempts == asked


def test_a_server_that_recovers_is_forgiven(web: Hostile, tmp_path: Path) -> None:
    web.special["/a.jpg"] = flaky(1, 503, picture(1))
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert outcome.reason is None and outcome.attempts == 2


def test_retry_after_is_waited_for(web: Hostile, tmp_path: Path) -> None:
    web.special["/a.jpg"] = flaky(1, 429, picture(1), Retry_After="1")
    started = time.monotonic()
    assert reason(web, tmp_path, "/a.jpg", deadline_s=5) is None
    assert time.monotonic() - started >= 1


def test_a_retry_after_beyond_the_deadline_ends_with_the_deadline(web: Hostile, tmp_path: Path) -> None:
    web.special["/a.jpg"] = flaky(9, 429, picture(1), Retry_After="3600")
    started = time.monotonic()
    assert reason(web, tmp_path, "/a.jpg") == "rate_limited"
    assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    ("misdeed", "expected"),
    [
        (stall(), "timeout"),
        (drip(0.02), "too_slow"),
        (endless, "too_large"),
        (short_body, "wrong_length"),
        (redirect_to("/a.jpg"), "too_many_redirects"),
        (redirect_to("http://10.0.0.1/a.jpg"), "private_address"),
        (redirect_to("http://169.254.169.254/latest/meta-data"), "private_address"),
        (redirect_to("http://[::1]/a.jpg"), "private_address"),
        (redirect_to("http://2130706433/a.jpg"), "private_address"),
        (redirect_to("http://0x7f000001/a.jpg"), "private_address"),
        (redirect_to("http://localhost/a.jpg"), "private_address"),
        (redirect_to("file:///etc/passwd"), "bad_url"),
        (redirect_to("http://[broken/"), "bad_url"),
    ],
)
def test_each_misdeed_ends_in_time_under_its_reason(web: Hostile, tmp_path: Path, misdeed: Any, expected: str) -> None:
    web.special["/a.jpg"] = misdeed
    started = time.monotonic()
    assert reason(web, tmp_path, "/a.jpg") == expected
    assert time.monotonic() - started < 3


def test_ten_thousand_redirects_stop_at_the_limit(web: Hostile, tmp_path: Path) -> None:
    for hop in range(20):
        web.special[f"/{hop}"] = redirect_to(f"/{hop + 1}")
    assert reason(web, tmp_path, "/0") == "too_many_redirects"
    assert web.asked[f"{HOST}/5"] == 1 and web.asked[f"{HOST}/6"] == 0


def test_a_redirect_is_followed_and_remembered(web: Hostile, tmp_path: Path) -> None:
    web.page("/b.jpg", picture(1))
    web.special["/a.jpg"] = redirect_to("/b.jpg")
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert outcome.reason is None and outcome.final_url == f"http://{HOST}/b.jpg"


def test_what_is_cut_off_by_our_own_end_has_no_outcome(web: Hostile, tmp_path: Path) -> None:
    """It would be taken for a fault of the server's, and never be asked for again."""
    web.special["/a.jpg"] = stall(60.0)
    config = DownloadConfig(**(FAST | {"timeout": 60.0, "deadline_s": 60.0, "retries": 0}))

    async def run() -> None:
        with Spool(tmp_path) as spool:
            async with Downloader(config, resolve={"*.owl3.test": f"127.0.0.1:{web.port}"}) as downloader:
                fetching = asyncio.ensure_future(downloader.fetch(f"http://{HOST}/a.jpg", spool))
                while not web.asked[f"{HOST}/a.jpg"]:
                    await asyncio.sleep(0.01)
            assert len(spool) == 0
            with pytest.raises(asyncio.CancelledError):
                await fetching

    asyncio.run(run())


def test_private_hosts_need_the_recipes_permission(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", picture(1))
    assert reason(web, tmp_path, "/a.jpg", allow_private_hosts=()) == "private_address"
    assert reason(web, tmp_path / "2", f"http://127.0.0.1:{web.port}/a.jpg") == "private_address"
    assert not web.asked


def test_a_name_that_leads_home_is_refused(web: Hostile, tmp_path: Path) -> None:
    async def lookup(host: str) -> list[str]:
        return ["127.0.0.1"]

    assert reason(web, tmp_path, f"http://rebind.example:{web.port}/a.jpg", lookup=lookup) == "private_address"
    assert not web.asked


def test_a_name_that_does_not_resolve(web: Hostile, tmp_path: Path) -> None:
    async def lookup(host: str) -> list[str]:
        raise OSError("no such host")

    assert reason(web, tmp_path, "http://gone.example/a.jpg", lookup=lookup) == "dns_error"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"<html>sign in</html>", "not_an_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "not_an_image"),
        (b"", "empty_body"),
        (picture(1)[:900], "truncated_image"),
        (b"\xff\xd8\xff" + bytes(100), "not_an_image"),
    ],
)
def test_bytes_that_are_no_picture_are_not_spooled(web: Hostile, tmp_path: Path, body: bytes, expected: str) -> None:
    web.page("/a.jpg", body, Content_Type="image/jpeg")
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert outcome.reason == expected and outcome.num_bytes == 0
    assert (tmp_path / "bodies.bin").stat().st_size == 0


def test_a_bomb_is_refused(web: Hostile, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(buffer, "PNG")
    web.page("/a.png", buffer.getvalue())
    assert reason(web, tmp_path, "/a.png") == "decompression_bomb"


def test_a_picture_over_the_cap_is_refused_not_cut(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", picture(1))
    assert reason(web, tmp_path, "/a.jpg", max_bytes=500) == "too_large"


def test_a_gzip_bomb_stops_at_the_cap(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", gzip.compress(bytes(50_000_000)), Content_Encoding="gzip")
    assert reason(web, tmp_path, "/a.jpg") == "too_large"
    web.page("/b.jpg", gzip.compress(picture(1)), Content_Encoding="gzip")
    assert reason(web, tmp_path, "/b.jpg") is None


def test_a_rotated_picture_is_made_upright_as_it_comes(web: Hostile, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    web.page("/a.jpg", picture(1, (96, 64), exif=exif))
    (outcome,) = fetch(web, tmp_path, "/a.jpg", resizing=EngineConfig().resizing)
    with Spool(tmp_path) as spool:
        upright = Image.open(io.BytesIO(spool.body(outcome, made=True)))
    assert upright.size == (64, 96) and upright.format == "JPEG"
    assert outcome.size == [64, 96]


def test_robots_txt_is_asked_once_and_obeyed(web: Hostile, tmp_path: Path) -> None:
    web.robots[HOST] = (200, "User-agent: *\nDisallow: /private")
    for path in ("/a.jpg", "/b.jpg", "/private/c.jpg"):
        web.page(path, picture(len(path)))
    outcomes = fetch(web, tmp_path, "/a.jpg", "/b.jpg", "/private/c.jpg")
    assert [outcome.reason for outcome in outcomes] == [None, None, "robots_disallowed"]
    assert web.asked[f"{HOST}/robots.txt"] == 1 and web.asked[f"{HOST}/private/c.jpg"] == 0


def test_robots_txt_of_the_host_redirected_to_is_obeyed(web: Hostile, tmp_path: Path) -> None:
    web.robots["other.owl3.test"] = (200, "User-agent: *\nDisallow: /")
    web.special["/a.jpg"] = redirect_to("http://other.owl3.test/b.jpg")
    assert reason(web, tmp_path, "/a.jpg") == "robots_disallowed"
    assert web.asked["other.owl3.test/b.jpg"] == 0


def test_tdmrep_json_is_asked_once_and_obeyed(web: Hostile, tmp_path: Path) -> None:
    web.page("/.well-known/tdmrep.json", b'[{"location": "/private", "tdm-reservation": 1}]')
    for name in ("/a.jpg", "/b.jpg", "/private/c.jpg"):
        web.page(name, picture(1))
    outcomes = fetch(web, tmp_path, "/a.jpg", "/b.jpg", "/private/c.jpg")
    assert [outcome.reason for outcome in outcomes] == [None, None, "tdm_reserved"]
    assert (outcomes[2].rights_signal, outcomes[2].rights_value) == ("tdmrep.json", "1 /private")
    assert web.asked[f"{HOST}/.well-known/tdmrep.json"] == 1 and web.asked[f"{HOST}/private/c.jpg"] == 0


@pytest.mark.parametrize(("status", "expected"), [(403, "robots_disallowed"), (500, "robots_unavailable")])
def test_a_robots_txt_that_can_not_be_read_refuses(web: Hostile, tmp_path: Path, status: int, expected: str) -> None:
    web.robots[HOST] = (status, "")
    web.page("/a.jpg", picture(1))
    assert reason(web, tmp_path, "/a.jpg") == expected
    assert web.asked[f"{HOST}/a.jpg"] == 0


@pytest.mark.parametrize(
    ("header", "value", "expected"),
    [
        ("X_Robots_Tag", "noai", "opt_out_header"),
        ("tdm_reservation", "1", "tdm_reserved"),
        ("Content_Usage", "train-ai=n", "aipref_disallowed"),
    ],
)
def test_an_opt_out_header_stops_before_the_body(
    web: Hostile, tmp_path: Path, header: str, value: str, expected: str
) -> None:
    web.page("/a.jpg", picture(1), **{header: value})
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert (outcome.reason, outcome.rights_value) == (expected, value)
    assert web.asked[f"{HOST}/a.jpg"] == 1  # an opt-out is an answer, not a failure to retry


def test_a_host_that_swallows_requests_costs_one_timeout_not_all_retries(web: Hostile, tmp_path: Path) -> None:
    paths = [f"http://stall.owl3.test/{number}.jpg" for number in range(12)]
    for number in range(12):
        web.special[f"/{number}.jpg"] = stall()
    breaker = {"connections_per_host": 4, "dead_host_failures": 4}
    outcomes = fetch(web, tmp_path, *paths, retries=5, deadline_s=30, backoff_s=0.5, hosts=breaker)
    assert {outcome.reason for outcome in outcomes} == {"dead_host"}
    assert sorted(outcome.attempts for outcome in outcomes) == [0] * 8 + [1] * 4


def test_nobody_waits_for_the_rate_of_a_dead_host(web: Hostile, tmp_path: Path) -> None:
    paths = [f"http://stall.owl3.test/{number}.jpg" for number in range(40)]
    for number in range(40):
        web.special[f"/{number}.jpg"] = stall()
    started = time.monotonic()
    fetch(web, tmp_path, *paths, hosts={"requests_per_s": 2, "dead_host_failures": 2})
    assert time.monotonic() - started < 10  # at two per second they would take twenty


def test_a_host_that_asks_for_a_pause_gets_it_for_all_its_urls(web: Hostile, tmp_path: Path) -> None:
    asked: list[float] = []

    def busy(handler: Any) -> None:
        asked.append(time.monotonic())
        handler.answer(429 if len(asked) == 1 else 200, {"Retry-After": "1"}, picture(1))

    for path in ("/a.jpg", "/b.jpg", "/c.jpg"):
        web.special[path] = busy
    outcomes = fetch(web, tmp_path, "/a.jpg", "/b.jpg", "/c.jpg", deadline_s=5, hosts={"connections_per_host": 1})
    assert [outcome.reason for outcome in outcomes] == [None] * 3
    assert asked[1] - asked[0] >= 1
    outcomes = fetch(web, tmp_path / "2", "/a.jpg", hosts={"max_retry_after_s": 0})
    assert outcomes[0].reason is None


def test_a_host_that_answers_some_rows_is_never_given_up(web: Hostile, tmp_path: Path) -> None:
    web.page("/good.jpg", picture(1))
    for number in range(6):
        web.special[f"/{number}.jpg"] = stall()
    outcomes = fetch(
        web,
        tmp_path,
        "/good.jpg",
        *(f"/{number}.jpg" for number in range(6)),
        retries=0,
        timeout=0.1,
        hosts={"dead_host_failures": 2, "connections_per_host": 1},
    )
    assert [outcome.reason for outcome in outcomes] == [None] + ["timeout"] * 6


def test_connections_per_host_are_limited(web: Hostile, tmp_path: Path) -> None:
    inside, most = [0], [0]

    def count(handler: Any) -> None:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        time.sleep(0.03)
        inside[0] -= 1
        handler.answer(200, {}, picture(1))

    for number in range(8):
        web.special[f"/{number}.jpg"] = count
    fetch(web, tmp_path, *(f"/{number}.jpg" for number in range(8)), hosts={"connections_per_host": 2})
    assert most[0] == 2


def test_requests_per_second_are_limited(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", picture(1))
    started = time.monotonic()
    fetch(web, tmp_path, *(f"/a.jpg?{number}" for number in range(6)), hosts={"requests_per_s": 20})
    assert time.monotonic() - started >= 5 / 20


def test_header_bytes_that_are_no_text_are_kept_as_what_can_be_written(web: Hostile, tmp_path: Path) -> None:
    """One such header would end the run, and every run after it."""
    web.special["/a.jpg"] = raw_answer(b"X-Robots-Tag: \xff\xfe", body=picture(1))
    web.special["/b.jpg"] = raw_answer(b"X-Robots-Tag: \xff, noai", body=picture(1))
    web.special["/c.jpg"] = raw_answer(status=b"500 \xff\xfe")
    outcomes = fetch(web, tmp_path, "/a.jpg", "/b.jpg", "/c.jpg")
    assert [outcome.reason for outcome in outcomes] == [None, "opt_out_header", "server_error"]
    with Spool(tmp_path) as spool:
        assert [spool.get(outcome.url_id) for outcome in outcomes] == outcomes


@pytest.mark.parametrize(
    ("location", "path"),
    [(b"/b c.jpg", "/b%20c.jpg"), ("/é.jpg".encode(), "/%C3%A9.jpg"), (b"/\xe9.jpg", "/%E9.jpg")],
)
def test_a_redirect_to_bytes_that_are_no_url_leads_where_it_should(
    web: Hostile, tmp_path: Path, location: bytes, path: str
) -> None:
    web.page(path, picture(1))
    web.special["/a.jpg"] = raw_answer(b"Location: " + location, status=b"302 Found")
    (outcome,) = fetch(web, tmp_path, "/a.jpg")
    assert (outcome.reason, outcome.final_url) == (None, f"http://{HOST}{path}")


def test_a_host_that_redirects_to_dead_ones_is_not_dead_itself(web: Hostile, tmp_path: Path) -> None:
    for number in range(6):
        web.special[f"/{number}.jpg"] = redirect_to(f"http://dead{number}.example/x.jpg")
    web.page("/good.jpg", picture(1))

    async def lookup(host: str) -> list[str]:
        raise OSError("no such host")

    paths = [*(f"/{number}.jpg" for number in range(6)), "/good.jpg"]
    limits = {"dead_host_failures": 2, "connections_per_host": 1}
    outcomes = fetch(web, tmp_path, *paths, retries=0, hosts=limits, lookup=lookup)
    assert [outcome.reason for outcome in outcomes] == ["dns_error"] * 6 + [None]
    assert all(outcome.redirected and outcome.http_status is None for outcome in outcomes[:6]), "it answered"


@pytest.mark.parametrize("longer", [True, False])
def test_a_robots_txt_that_is_too_long_is_obeyed_in_its_first_half_megabyte(
    web: Hostile, tmp_path: Path, longer: bool
) -> None:
    filler = "# nothing\n" * 60_000
    web.robots[HOST] = (200, f"User-agent: *\nDisallow: /private\n{filler if longer else ''}")
    for path in ("/private/a.jpg", "/b.jpg"):
        web.page(path, picture(1))
    outcomes = fetch(web, tmp_path, "/private/a.jpg", "/b.jpg", timeout=5, deadline_s=20)
    assert [outcome.reason for outcome in outcomes] == ["robots_disallowed", None]


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        ((b"Content-Encoding: br",), b"\x0b\x02\x80", "robots_unavailable"),
        ((b"Content-Encoding: gzip",), b"no gzip", "robots_unavailable"),
        ((), b"", None),
    ],
)
def test_a_robots_txt_that_comes_and_can_not_be_read_keeps_us_out(
    web: Hostile, tmp_path: Path, headers: tuple[bytes, ...], body: bytes, expected: str | None
) -> None:
    web.special["/robots.txt"] = raw_answer(*headers, body=body)
    web.page("/a.jpg", picture(1))
    assert reason(web, tmp_path, "/a.jpg") == expected
    assert reason(web, tmp_path / "2", "/a.jpg", rights={"robots_refuse_on": []}) is None


def test_a_crawl_delay_holds_from_the_first_request_on_and_for_retries(web: Hostile, tmp_path: Path) -> None:
    asked: list[float] = []

    def count(handler: Any) -> None:
        asked.append(time.monotonic())
        handler.answer(503 if len(asked) == 2 else 200, {}, picture(1))

    web.robots[HOST] = (200, "User-agent: *\nCrawl-delay: 0.2")
    for number in range(4):
        web.special[f"/{number}.jpg"] = count
    outcomes = fetch(web, tmp_path, *(f"/{number}.jpg" for number in range(4)), deadline_s=5)
    assert [outcome.reason for outcome in outcomes] == [None] * 4
    assert len(asked) == 5
    assert min(later - earlier for earlier, later in pairwise(asked)) > 0.15


def test_one_url_in_many_rows_is_fetched_once(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", picture(1))
    outcomes = fetch(web, tmp_path, "/a.jpg", "/a.jpg", "/a.jpg#fragment")
    assert {outcome.reason for outcome in outcomes} == {None} and web.asked[f"{HOST}/a.jpg"] == 1


def test_blocked_domains_are_never_asked(web: Hostile, tmp_path: Path) -> None:
    web.page("/a.jpg", picture(1))
    assert reason(web, tmp_path, "/a.jpg", block_domains=("owl3.test",)) == "blocklisted"
    assert reason(web, tmp_path, f"http://{HOST}./a.jpg", block_domains=("owl3.test",)) == "blocklisted"
    assert not web.asked


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={HOST}"),
            *("-addext", f"subjectAltName=DNS:{HOST}", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"),
        ],
        check=True,
        capture_output=True,
    )
    return folder


def test_certificates_are_verified(self_signed: Path, tmp_path: Path) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(self_signed / "cert.pem", self_signed / "key.pem")
    trusting = ssl.create_default_context(cafile=str(self_signed / "cert.pem"))
    with hostile_server(server) as web:
        web.page("/a.jpg", picture(1))
        assert reason(web, tmp_path, f"https://{HOST}/a.jpg") == "tls_error"
        assert reason(web, tmp_path / "2", f"https://{HOST}/a.jpg", tls=trusting) is None
        assert reason(web, tmp_path / "3", "https://other.owl3.test/a.jpg", tls=trusting) == "tls_error"
