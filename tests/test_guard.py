"""Tests stay on this machine, and a fixture enforces it."""

import socket

import pytest


def test_a_connection_off_this_machine_fails_the_test() -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match=r"stay on 127\.0\.0\.1"):
        probe.connect(("192.0.2.1", 80))


def test_loopback_is_allowed() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())
