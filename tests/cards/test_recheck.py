"""Asking hosts again on this machine: who changed their mind is proposed for retraction, and nobody else."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from owl3.cards.retract import assess, read_list
from owl3.curate.limits import DownloadConfig
from owl3.recheck import RECHECKS, recheck, record, write_proposal

from .conftest import HOSTS, picture

CONFIG = DownloadConfig(allow_private_hosts=("*.test", "*.org", "*.net"), timeout=5, retries=0, backoff_s=0)


class _Server(BaseHTTPRequestHandler):
    """robots.owl3.test forbids everything now; a.example.net sends a header; the rest is as it was."""

    def do_GET(self) -> None:
        host = self.headers["Host"].split(":")[0]
        if self.path == "/robots.txt":
            forbids = host == "robots.owl3.test"
            self._send(200 if forbids else 404, b"User-agent: *\nDisallow: /\n" if forbids else b"", {})
        else:
            header = {"X-Robots-Tag": "noai"} if host == "a.example.net" else {}
            self._send(200, picture(1), header)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        return None


@pytest.fixture
def resolve() -> Iterator[dict[str, str]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield dict.fromkeys(HOSTS, f"127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_new_reservations_become_a_proposal(workspace: Path, resolve: dict[str, str], tmp_path: Path) -> None:
    result = recheck(workspace, per_host=1, resolve=resolve, config=CONFIG)
    refused = {(entry.host, entry.reason) for entry in result.opt_outs}
    assert refused == {("robots.owl3.test", "robots_disallowed"), ("a.example.net", "opt_out_header")}
    some = recheck(workspace, per_host=1, hosts=2, resolve=resolve, config=CONFIG)
    assert some.hosts == 2
    # One URL per host was asked, and then all of the two that refuse.
    kept = {host: sum(entry.host == host for entry in result.opt_outs) for host, _ in refused}
    assert result.asked == 3 + sum(kept.values())
    record(workspace, result)
    history = [json.loads(line) for line in (workspace / RECHECKS).read_text().splitlines()]
    assert [(entry["asked"], entry["opt_outs"]) for entry in history] == [(result.asked, len(result.opt_outs))]
    write_proposal(tmp_path / "opt-outs.txt", result)
    impact = assess(workspace, read_list(tmp_path / "opt-outs.txt"))
    assert impact.urls_kept == len(result.opt_outs)
