"""What the demo's server answers to each URL: the contract between who makes a corpus and who serves it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field

from owl3.config import Config, plain, validate
from owl3.demo.faults import Behaviour
from owl3.errors import InputError
from owl3.storage import write_atomic


class Route(Config):
    """One URL. `file` is relative to the corpus folder, or absolute for files that lie elsewhere."""

    url: str
    file: str = ""
    behaviour: Behaviour = "serve"
    status: int = 200
    headers: dict[str, str] = Field(default_factory=dict)
    target: str = ""

    @property
    def place(self) -> tuple[str, str]:
        """Host and path, as they arrive in a request."""
        parts = urlsplit(self.url)
        return parts.netloc, parts.path


def write_routes(path: Path, routes: list[Route]) -> None:
    """Write one JSON line per route."""
    write_atomic(path, "".join(json.dumps(plain(route), sort_keys=True) + "\n" for route in routes).encode())


def read_routes(path: Path) -> dict[tuple[str, str], Route]:
    """Routes by (host, path).

    Raises:
        InputError: no such file.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found; a served folder holds a routes.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    routes = [validate(json.loads(line), Route, where=f"{path}:{n}") for n, line in enumerate(lines, 1)]
    return {route.place: route for route in routes}


def write_mounts(folder: Path, mounts: Mapping[str, Path]) -> None:
    """Say which hosts serve whole folders."""
    data = {host: str(path) for host, path in sorted(mounts.items())}
    write_atomic(folder / "mounts.json", json.dumps(data, indent=1).encode())


def read_mounts(folder: Path) -> dict[str, str]:
    """Folders by host; none when nothing is mounted."""
    path = folder / "mounts.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
