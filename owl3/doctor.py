"""Is this machine ready? Each check names what it found and, where something is missing, how to mend it."""

import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from importlib import metadata
from pathlib import Path

import psutil

from owl3 import tools
from owl3.config import Config
from owl3.secrecy import hide

_MIN_FREE_GB = 5.0
_MIN_MEMORY_GB = 6.0
_MIN_SHARED_GB = 0.05
_MIN_FILES = 1024
_WAIT_S = 5.0
_PACKAGES = ("torch", "transformers", "deepspeed", "prefect", "fastapi", "sqlalchemy", "webdataset", "datasets", "av")


class Finding(Config):
    """One check: what was found and, if that is not enough, what to do."""

    check: str
    ok: bool
    found: str
    remedy: str = ""


def examine(workspace: Path) -> list[Finding]:
    """Run all checks against this machine and the folder that artifacts go to."""
    return [
        *_versions(),
        *_programs(),
        *_tool_environments(),
        *_resources(workspace),
        *_limits(),
        *_ports(),
        *_gpu(),
        *_prefect(),
    ]


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
    writable = _can_write(existing)
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
    if driver is None:
        yield Finding(check="GPU", ok=True, found="none: training and evaluation run on the CPU")
        return
    query = [driver, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=_WAIT_S, check=True).stdout.strip()
    except (subprocess.SubprocessError, OSError) as error:
        yield Finding(check="GPU", ok=False, found=f"nvidia-smi fails: {error}", remedy="mend the driver; reboot helps")
        return
    cards = told.splitlines()
    yield Finding(check="GPU", ok=bool(cards), found=f"{len(cards)} x {cards[0] if cards else 'nothing'}")
    libraries = [name for name in _installed() if name.startswith("nvidia-nccl-")]
    yield Finding(
        check="NCCL",
        ok=bool(libraries),
        found=", ".join(f"{name} {metadata.version(name)}" for name in libraries) or "none: this torch is a CPU build",
        remedy="pip install torch from an index with CUDA builds",
    )


def _installed() -> list[str]:
    return sorted({str(entry.name).lower() for entry in metadata.distributions()})


def _can_write(folder: Path) -> bool:
    """Really write: a full disk or a read-only mount lets `os.access` say yes."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".owl3-doctor-") as file:
            file.write(b"x")
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def _limits() -> Iterator[Finding]:
    """What several loader workers and thousands of connections need."""
    shared = Path("/dev/shm")
    if shared.is_dir():
        free_gb = shutil.disk_usage(shared).free / 1e9
        yield Finding(
            check="shared memory",
            ok=free_gb >= _MIN_SHARED_GB,
            found=f"{free_gb:.1f} GB free in {shared}",
            remedy="docker run --shm-size=16g, or an emptyDir of medium Memory (infra/k8s/train.yaml)",
        )
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield Finding(
        check="open files",
        ok=files >= _MIN_FILES,
        found=f"at most {files}",
        remedy="ulimit -n 4096: fetching keeps a thousand connections open",
    )


def _ports() -> Iterator[Finding]:
    """Ports that are asked for by number; others are chosen free."""
    for port, use, remedy in (
        (4200, "prefect server start", "it may be running already; else prefect server start --port N"),
        (29500, "torchrun on several nodes", "set MASTER_PORT to another"),
    ):
        with socket.socket() as probe:
            is_taken = probe.connect_ex(("127.0.0.1", port)) == 0
        taken = "somebody listens there" if is_taken else "free"
        yield Finding(check=f"port {port}", ok=True, found=f"{taken} ({use}{'; ' + remedy if is_taken else ''})")


def _prefect() -> Iterator[Finding]:
    api = os.environ.get("PREFECT_API_URL")
    if not api:
        yield Finding(check="Prefect server", ok=True, found="none named: flows start one of their own")
        return
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=_WAIT_S) as answer:
            yield Finding(check="Prefect server", ok=answer.status == 200, found=hide(f"{api} answers {answer.status}"))
    except (OSError, ValueError, HTTPException) as error:
        yield Finding(
            check="Prefect server",
            ok=False,
            found=hide(f"PREFECT_API_URL={api} does not answer ({error})"),
            remedy="start it (prefect server start), or unset PREFECT_API_URL",
        )
