"""Events are best effort: they arrive where a server listens, and nothing waits or fails where none does."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from owl3 import events


class Server(HTTPServer):
    heard: list[tuple[str, Any]]
    authorization: str | None = None


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.heard.append((self.path, body))
        self.server.authorization = self.headers["Authorization"]
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def test_an_event_arrives_as_prefects_api_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.events.schemas.events import Event

    with Server(("127.0.0.1", 0), Handler) as server:
        server.heard = []
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        labels = {"owl3.workspace": "/w"}
        events.emit("owl3.checkpoint.saved", "owl3.run.demo.sft", labels=labels, payload={"step": 3})
        serving.join(30)
    ((path, (sent,)),) = server.heard
    event = Event.model_validate(sent)
    assert path == "/api/events"
    assert event.event == "owl3.checkpoint.saved"
    assert event.resource.id == "owl3.run.demo.sft"
    assert event.resource["owl3.workspace"] == "/w"
    assert event.payload == {"step": 3}


def test_nobody_listening_is_said_once_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    event = events.build("owl3.checkpoint.saved", "owl3.run.demo.sft", {}, {})
    assert [events.post("http://127.0.0.1:9/api", event) for _ in range(3)] == [False] * 3
    assert len(caplog.records) == 1


def test_without_a_server_nothing_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    before = threading.active_count()
    events.emit("owl3.checkpoint.saved", "owl3.run.demo.sft")
    assert threading.active_count() == before


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("PREFECT_API_AUTH_STRING", "me:word", "Basic bWU6d29yZA=="), ("PREFECT_API_KEY", "pnu_1", "Bearer pnu_1")],
)
def test_a_server_with_a_login_is_shown_prefects_own_credentials(
    name: str, value: str, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PREFECT_API_AUTH_STRING", raising=False)
    monkeypatch.setenv(name, value)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.heard = []
        serving = threading.Thread(target=server.handle_request)
        serving.start()
        assert events.post(f"http://127.0.0.1:{server.server_port}/api", events.build("e", "r", {}, {}))
        serving.join(30)
    assert server.authorization == shown


@pytest.mark.parametrize("api", ["http://someone:pa ss@127.0.0.1:9/api", "http://127.0.0.1:port/api", "nonsense"])
def test_an_address_that_is_none_harms_nothing(api: str, caplog: pytest.LogCaptureFixture) -> None:
    assert events.post(api, events.build("e", "r", {}, {})) is False
    assert len(caplog.records) == 1
