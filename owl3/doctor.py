"""Is this machine ready? Each check names what it found and, where something is missing, how to mend it."""

import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil

from owl3 import tools
from owl3.config import Config

_MIN_FREE_GB = 5.0
_MIN_MEMORY_GB = 6.0
_PACKAGES = ("torch", "transformers", "deepspeed", "prefect", "fastapi", "sqlalchemy", "webdataset", "datasets", "av")


class Finding(Config):
    """One check: what was found and, if that is not enough, what to do."""

    check: str
    ok: bool
    found: str
    remedy: str = ""


def examine(workspace: Path) -> list[Finding]:
    """Run all checks against this machine and the folder that artifacts go to."""
    return [*_versions(), *_programs(), *_tool_environments(), *_resources(workspace), *_gpu()]


def _versions() -> Iterator[Finding]:
    supported = (3, 11) <= sys.version_info[:2] < (3, 13)
    yield Finding(check="python", ok=supported, found=platform.python_version(), remedy="use 3.11 or 3.12")
    for package in _PACKAGES:
        try:
            yield Finding(check=package, ok=True, found=metadata.version(package))
        except metadata.PackageNotFoundError:
            yield Finding(check=package, ok=False, found="not installed", remedy="make setup")
    backport = _is_distribution("dataclasses")
    yield Finding(
        check="dataclasses backport",
        ok=not backport,
        found="installed" if backport else "absent, as it must be",
        remedy="pip uninstall dataclasses: it stops Prefect's server from starting",
    )


def _is_distribution(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _programs() -> Iterator[Finding]:
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    yield Finding(
        check="C++ compiler",
        ok=compiler is not None,
        found=compiler or "none",
        remedy="install g++ (Debian: apt-get install g++): DeepSpeed builds its CPU communication once",
    )
    ninja = shutil.which("ninja") or shutil.which("ninja", path=str(Path(sys.executable).parent))
    yield Finding(check="ninja", ok=ninja is not None, found=ninja or "none", remedy="pip install ninja")


def _tool_environments() -> Iterator[Finding]:
    for name in tools.NAMES:
        installed = tools.is_installed(name)
        optional = name != "img2dataset"
        found = "installed" if installed else "not installed" + (" (optional)" if optional else "")
        yield Finding(check=f"tool {name}", ok=installed or optional, found=found, remedy=f"owl3 tools install {name}")


def _resources(workspace: Path) -> Iterator[Finding]:
    existing = next(path for path in (workspace.absolute(), *workspace.absolute().parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    yield Finding(
        check="disk", ok=free_gb >= _MIN_FREE_GB, found=f"{free_gb:.0f} GB free at {existing}", remedy="free some space"
    )
    writable = os.access(existing, os.W_OK)
    yield Finding(
        check="workspace", ok=writable, found=f"{existing} is {'' if writable else 'not '}writable", remedy="chmod it"
    )
    memory_gb = psutil.virtual_memory().available / 1e9
    yield Finding(
        check="memory", ok=memory_gb >= _MIN_MEMORY_GB, found=f"{memory_gb:.0f} GB available", remedy="close programs"
    )
    yield Finding(check="cores", ok=True, found=str(psutil.cpu_count()))
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
        yield Finding(check="loopback port", ok=True, found="can listen on 127.0.0.1")
    except OSError as error:
        yield Finding(check="loopback port", ok=False, found=str(error), remedy="allow listening on 127.0.0.1")


def _gpu() -> Iterator[Finding]:
    driver = shutil.which("nvidia-smi")
    found = driver or "none: training and evaluation run on the CPU"
    yield Finding(check="GPU", ok=True, found=found)
