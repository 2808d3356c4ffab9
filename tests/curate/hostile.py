"""A web server that does to a downloader what the web does, on 127.0.0.1, one path per misdeed."""

import io
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int] = (96, 64), fmt: str = "JPEG", **save: Any) -> bytes:
    """A smooth random picture: its perceptual hash differs from that of other seeds."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8))
    buffer = io.BytesIO()
    small.resize(size, Image.Resampling.BICUBIC).save(buffer, fmt, **save)
    return buffer.getvalue()


class Hostile:
    """The server's memory: what was asked, and what to answer."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.robots: dict[str, tuple[int, str]] = {}
        self.pages: dict[str, tuple[int, dict[str, str], bytes]] = {}
        self.special: dict[str, Callable[[Any], None]] = {}
        self.port = 0

    def page(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        """Answer `path` like this; header names are written with underscores."""
        self.pages[path] = (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def _handler(world: Hostile) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Stay silent."""

        def do_GET(self) -> None:
            host = self.headers.get("Host", "").partition(":")[0]
            world.asked[f"{host}{self.path}"] += 1
            world.agents.add(self.headers.get("User-Agent", ""))
            if self.path == "/robots.txt" and self.path not in world.special:
                status, text = world.robots.get(host, (404, ""))
                return self.answer(status, {}, text.encode())
            path = self.path.partition("?")[0]
            if path in world.special:
                return world.special[path](self)
            return self.answer(*world.pages.get(path, (404, {}, b"gone")))

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(body))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

    return Handler


@contextmanager
def hostile_server(tls: ssl.SSLContext | None = None) -> Iterator[Hostile]:
    """Serve until the block ends."""
    world = Hostile()

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """Clients that hang up are the point here."""

    server = Server(("127.0.0.1", 0), _handler(world))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    world.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()


def raw_answer(*lines: bytes, body: bytes = b"", status: bytes = b"200 OK") -> Callable[[Any], None]:
    """Answer with header lines of any bytes."""

    def act(handler: Any) -> None:
        length = b"Content-Length: %d" % len(body)
        head = b"\r\n".join([b"HTTP/1.1 " + status, *lines, length, b"Connection: close", b"", b""])
        handler.wfile.write(head + body)
        handler.close_connection = True

    return act


def stall(seconds: float = 30.0) -> Callable[[Any], None]:
    """Accept, then say nothing."""

    def act(handler: Any) -> None:
        handler.connection.settimeout(seconds)
        try:
            handler.connection.recv(1)  # ends when the client hangs up
        except OSError:
            return

    return act


def drip(interval_s: float = 0.05) -> Callable[[Any], None]:
    """Announce a picture and send it one byte at a time."""

    def act(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        for _ in range(2000):
            handler.wfile.write(b"\xff")
            handler.wfile.flush()
            time.sleep(interval_s)

    return act


def endless(handler: Any) -> None:
    """A body without end."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.close_connection = True
    while True:
        handler.wfile.write(b"\xff" * 65536)


def short_body(handler: Any) -> None:
    """Announce more bytes than are sent."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    handler.wfile.write(picture(1))
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def redirect_to(target: str) -> Callable[[Any], None]:
    """302 to somewhere."""

    def act(handler: Any) -> None:
        handler.answer(302, {"Location": target}, b"")

    return act


def flaky(times: int, status: int, then: bytes, **headers: str) -> Callable[[Any], None]:
    """Fail a few times, then serve."""
    left = [times]

    def act(handler: Any) -> None:
        if left[0] > 0:
            left[0] -= 1
            return handler.answer(status, {k.replace("_", "-"): v for k, v in headers.items()}, b"later")
        return handler.answer(200, {}, then)

    return act
