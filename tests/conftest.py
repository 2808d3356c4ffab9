"""What all tests share: no network but loopback, real data only where it is, tiny artifacts."""

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from owl3.demo.run import Account

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).parents[2] / "shared"
_LOOPBACK = ("127.", "::1", "localhost", "0.0.0.0")


@pytest.fixture(autouse=True)
def _only_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail any connection that would leave this machine."""
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def guard(address: Any) -> None:
        if isinstance(address, tuple) and not str(address[0]).startswith(_LOOPBACK):
            raise AssertionError(f"a test tried to connect to {address[0]}; tests stay on 127.0.0.1")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        guard(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        guard(address)
        return connect_ex(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket.socket, "connect_ex", guarded_connect_ex)


@pytest.fixture
def shared_data() -> Callable[[str], Path]:
    """Return `find(relative)`: a path of the real data beside the repository, or skip with the reason."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"needs ../shared/{relative}, which is not on this machine")
        return path

    return find


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Path]:
    """An empty workspace."""
    folder = tmp_path / "workspace"
    folder.mkdir()
    yield folder


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `demo_account` left its artifacts."""
    return tmp_path_factory.mktemp("demo") / "workspace"


@pytest.fixture(scope="session")
def demo_account(demo_workspace: Path) -> "Account":
    """The demo's whole chain, cut down until it takes half a minute; tests only read what it left.

    Tests that use it carry `xdist_group("demo")`, so that it runs once.
    """
    from demo.tiny import write_tiny_recipe
    from planted import VARIABLES

    from owl3.demo.run import run
    from owl3.recipe import load_recipe

    demo_workspace.mkdir()
    with pytest.MonkeyPatch.context() as environment:  # secrets that none of the artifacts may hold
        for name, value in VARIABLES.items():
            environment.setenv(name, value)
        return run(load_recipe(write_tiny_recipe(demo_workspace.parent / "tiny.yaml")), demo_workspace)
