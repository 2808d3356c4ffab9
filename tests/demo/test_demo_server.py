"""The server answers each URL as its route says, on loopback only, and never outlives its time or its parent."""

import http.client
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from owl3.demo.server import running
from owl3.errors import Interrupted


@pytest.fixture(scope="module")
def address(corpus: Path) -> Iterator[str]:
    with running(corpus, lifetime_s=280) as found:
        yield found


def ask(address: str, host: str, path: str, timeout_s: float = 60) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection(address, timeout=timeout_s)
    try:
        connection.request("GET", path, headers={"Host": host})
        response = connection.getresponse()
        return response.status, dict(response.headers), response.read()
    finally:
        connection.close()


def test_it_listens_on_loopback(address: str) -> None:
    assert address.startswith("127.0.0.1:")


def test_a_picture_is_served_as_it_lies_on_disk(address: str, corpus: Path) -> None:
    status, headers, body = ask(address, "photos.owl3.test", "/000001.jpg")
    assert (status, headers["Content-Type"]) == (200, "image/jpeg")
    assert body == (corpus / "served/pictures/000001.jpg").read_bytes()


@pytest.mark.parametrize(
    ("host", "path", "status"),
    [
        ("photos.owl3.test", "/missing/000.jpg", 404),
        ("photos.owl3.test", "/busy/000.jpg", 503),
        ("photos.owl3.test", "/never/was.jpg", 404),
        ("stall.owl3.test", "/000001.jpg", 404),
        ("mirror.owl3.test", "/robots.txt", 404),
        ("robots.owl3.test", "/robots.txt", 200),
    ],
)
def test_each_host_and_path_has_its_own_answer(address: str, host: str, path: str, status: int) -> None:
    assert ask(address, host, path)[0] == status


def test_a_busy_server_answers_the_second_time(address: str) -> None:
    answers = [ask(address, "photos.owl3.test", "/busy-once/001.jpg")[0] for _ in range(3)]
    assert answers == [503, 200, 200]


def test_opt_outs_are_sent_as_headers(address: str) -> None:
    assert ask(address, "noai.owl3.test", "/noai/000.jpg")[1]["X-Robots-Tag"] == "noai"
    assert ask(address, "tdm.owl3.test", "/tdm/000.jpg")[1]["tdm-reservation"] == "1"


def test_redirects_lead_to_addresses_nobody_should_follow(address: str) -> None:
    assert ask(address, "away.owl3.test", "/to-private/000.jpg")[1]["Location"] == "http://10.0.0.1/"
    assert ask(address, "away.owl3.test", "/to-metadata/000.jpg")[1]["Location"].startswith("http://169.254.169.254/")


def test_a_stalled_connection_promises_a_body_and_sends_none(address: str) -> None:
    with pytest.raises(TimeoutError):
        ask(address, "stall.owl3.test", "/stalled/000.jpg", timeout_s=0.3)


def test_broken_pictures_come_with_status_200(address: str) -> None:
    assert ask(address, "photos.owl3.test", "/web-page/000.jpg")[2].startswith(b"<!doctype html>")
    status, _, body = ask(address, "photos.owl3.test", "/truncated/000.jpg")
    assert status == 200
    assert body.startswith(b"\xff\xd8") and not body.endswith(b"\xff\xd9")


def test_it_ends_when_its_parent_is_killed(corpus: Path) -> None:
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom owl3.demo.server import running\n"
        "with running(Path(sys.argv[1]), 120) as address:\n    print(address, flush=True)\n    time.sleep(120)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script, str(corpus)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    address = parent.stdout.readline().decode().strip()
    # A held connection breaks when the server is gone: waiting for that needs no sleep.
    held = http.client.HTTPConnection(address, timeout=30)
    held.request("GET", "/stalled/000.jpg", headers={"Host": "stall.owl3.test"})
    response = held.getresponse()
    os.kill(parent.pid, signal.SIGKILL)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        response.read()  # returns when the server's end of the connection is gone
    parent.communicate()
    with pytest.raises((ConnectionRefusedError, ConnectionResetError)):
        ask(address, "photos.owl3.test", "/000001.jpg")


def test_a_folder_without_routes_is_an_error_not_a_hang(tmp_path: Path) -> None:
    with pytest.raises(Interrupted, match="did not start"), running(tmp_path):
        pytest.fail("it must not start")
