"""Tool environments: programs that cannot live beside the rest, each in a virtual environment of its own.

img2dataset depends on a backport (`dataclasses`) that stops Prefect's server from starting, and on old pandas, opencv
and albumentations; clip-retrieval needs transformers 4 and numpy 1. Both are called as processes, through one door
each (`curate/fetch.py`, `curate/embed.py`), with the interpreter that `python(name)` returns. `peers` are the loaders
that `owl3 bench loader` is measured against, `lmms` is lmms-eval, which takes us as a model: packages beside ours, that
only the processes that ask for them look into.
"""

import hashlib
import logging
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from filelock import FileLock

from owl3.errors import ConfigError, InputError
from owl3.storage import write_atomic

logger = logging.getLogger(__name__)

_REQUIREMENTS = Path(__file__).parent
NAMES = ("img2dataset", "clip", "peers", "lmms")


def tools_dir() -> Path:
    """Where tool environments live: `$OWL3_TOOLS_DIR`, else inside the environment that owl3 runs from."""
    return Path(os.environ.get("OWL3_TOOLS_DIR", Path(sys.prefix) / "owl3-tools"))


def requirements(name: str) -> Path:
    """The pinned requirements of a tool environment.

    Raises:
        ConfigError: for a name that is not one of `NAMES`.
    """
    if name not in NAMES:
        raise ConfigError(f"no tool environment {name!r}; there are: {', '.join(NAMES)}")
    return _REQUIREMENTS / f"{name}.txt"


def is_installed(name: str) -> bool:
    """Is the environment there, complete, and made from the present requirements?"""
    marker = tools_dir() / name / "installed"
    return marker.is_file() and marker.read_text() == _wanted(name)


def python(name: str) -> Path:
    """Return the interpreter of a tool environment.

    Raises:
        InputError: when it is not installed; the message says how to.
    """
    if not is_installed(name):
        raise InputError(f"tool environment {name!r} is not installed; run: owl3 tools install {name}")
    return tools_dir() / name / "bin" / "python"


def packages(name: str) -> Path:
    """Return the folder of a tool environment's packages, for what is imported beside ours instead of called.

    Raises:
        InputError: when it is not installed; the message says how to.
    """
    return Path(sysconfig.get_path("purelib", vars={"base": str(python(name).parents[1])}))


def install(name: str) -> Path:
    """Make the environment with pip from the package registry; a no-op when it is up to date.

    Raises:
        InputError: when pip fails; its last line is in the message.
    """
    wanted = _wanted(name)
    home = tools_dir() / name
    home.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(home.with_suffix(".lock")):
        if is_installed(name):
            return home / "bin" / "python"
        logger.info("installing tool environment %s into %s", name, home)
        venv.create(home, clear=True, with_pip=True)
        command = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "-r"]
        done = subprocess.run([*command, str(requirements(name))], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"tool environment {name!r}: pip failed: {last}")
        write_atomic(home / "installed", wanted.encode())
    return home / "bin" / "python"


def _wanted(name: str) -> str:
    """What marks an environment as made from the present requirements by the present interpreter."""
    return hashlib.sha256(requirements(name).read_bytes() + sys.version.encode()).hexdigest()
