"""Tests stay on this machine, and a fixture enforces it; and all of them run."""

import socket
from fnmatch import fnmatchcase
from pathlib import Path

import pytest


def test_a_connection_off_this_machine_fails_the_test() -> None:
    with socket.socket() as probe, pytest.raises(AssertionError, match=r"stay on 127\.0\.0\.1"):
        probe.connect(("192.0.2.1", 80))


def test_loopback_is_allowed() -> None:
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


def test_no_folder_of_tests_is_left_out(pytestconfig: pytest.Config) -> None:
    """pytest's own list of folders to leave out holds `build`."""
    tests = Path(__file__).parent
    folders = {part for path in tests.rglob("test_*.py") for part in path.relative_to(tests.parent).parts[:-1]}
    patterns = pytestconfig.getini("norecursedirs")
    assert [folder for folder in folders if any(fnmatchcase(folder, pattern) for pattern in patterns)] == []
