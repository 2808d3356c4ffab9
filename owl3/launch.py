"""Training and evaluation run as processes of their own.

So a worker that orchestrates never imports torch, a crash of theirs cannot take it along, and cancelling it ends them.
"""

import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from owl3 import lifeline
from owl3.errors import CheckFailed, InputError, Interrupted, Owl3Error
from owl3.secrecy import hide

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_STARTED = "$ "
"""Logs are appended to: with this and its command begins what a process wrote."""


def run_module(module: str, arguments: Sequence[str], *, log: Path | None = None, env: Mapping[str, str] = {}) -> None:
    """Run `python -m module arguments…` to its end, under a lifeline; see `wait_for` for what it raises.

    Args:
        module: The entry point, as `owl3.train`.
        arguments: Its command line.
        log: Where stdout and stderr go; None passes them through.
        env: Variables to set beside the present ones.
    """
    wait_for(start_module(module, arguments, log=log, env=env), module, log)


def start_module(
    module: str,
    arguments: Sequence[str],
    *,
    log: Path | None = None,
    env: Mapping[str, str] = {},
) -> "subprocess.Popen[bytes]":
    """Start `python -m module arguments…` under a lifeline and return at once.

    The lifeline has a session of its own: a SIGKILL of our whole group leaves it alive to end the child.
    """
    command = lifeline.wrap([sys.executable, "-m", module, *arguments])
    shown = hide(shlex.join(["python", "-m", module, *arguments]))
    logger.info("starting %s", shown)
    full_env = {**os.environ, "PYTHONUNBUFFERED": "1", **env}
    if log is None:
        return subprocess.Popen(command, env=full_env, start_new_session=True)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        output.write(f"{_STARTED}{shown}\n".encode())
        output.flush()
        return subprocess.Popen(command, env=full_env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def run_ranks(module: str, arguments: Sequence[str], processes: int, *, apart: bool = False) -> str:
    """Run a module several times at once, each told its rank, and return what rank 0 wrote to stdout.

    For processes that share files and need no rendezvous (evaluation); those that talk need `owl3.train.torchrun`.

    Args:
        module: The entry point.
        arguments: Its command line.
        processes: How many.
        apart: They do not wait for each other: when one ends badly, the others go on. Else they are ended.

    Raises:
        CheckFailed, InputError, Interrupted: as `wait_for`, for the first rank that ended badly.
    """
    command = lifeline.wrap([sys.executable, "-m", module, *arguments])
    ranks = []
    with tempfile.TemporaryFile("w+", encoding="utf-8") as told:
        try:
            for rank in range(processes):
                env = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
                stdout = told if rank == 0 else subprocess.DEVNULL
                ranks.append(subprocess.Popen(command, env=env, stdout=stdout, start_new_session=True))
            waiting = dict(enumerate(ranks))
            while waiting:
                ended = [rank for rank, process in waiting.items() if process.poll() is not None]
                if ended and not (apart and len(ended) < len(waiting)):
                    for rank in ended:
                        wait_for(waiting.pop(rank), f"{module} (rank {rank} of {processes}; its reason stands above)")
                time.sleep(_POLL_S if waiting else 0)
        finally:
            for process in ranks:
                process.terminate()
            for process in ranks:
                process.wait()
        told.seek(0)
        return told.read()


def wait_for(process: "subprocess.Popen[bytes]", name: str, log: Path | None = None) -> None:
    """Wait for a started process. SIGTERM to us goes on to it, and it is waited for: it may have something to save.

    Where somebody else handles SIGTERM, it stays with them: what their handler raises ends the process likewise, and is
    raised on. So an orchestrator that cancels us does not take what it stopped for something that failed.

    Raises:
        CheckFailed: it ended with 1. InputError: with 2. Interrupted: with anything else but 0; running again resumes.
    """
    with _sigterm_passed_on(process) as asked_to_stop:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    if asked_to_stop:
        message = f"{name} was stopped by SIGTERM{_last_lines(log)}"
        raise Interrupted(message if "run again to resume" in message else f"{message}; run again to resume")
    if code == 0:
        return
    message = f"{name} ended with exit code {code}{_last_lines(log)}"
    kinds: dict[int, type[Owl3Error]] = {1: CheckFailed, 2: InputError}
    error = kinds.get(code, Interrupted)(message)
    error.is_told = log is None and code in (CheckFailed.exit_code, InputError.exit_code)
    raise error


@contextmanager
def _sigterm_passed_on(process: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    """Yield the SIGTERMs that came meanwhile: none outside the main thread, which alone may handle signals."""
    came: list[int] = []
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield came
        return

    def pass_on(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        process.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _last_lines(log: Path | None) -> str:
    """What the process said last: our own one-line error rather than what a launcher makes of it."""
    if log is None or not log.is_file():
        return ""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    begins = max((n for n, line in enumerate(lines, start=1) if line.startswith(_STARTED)), default=0)
    told = [line for line in lines[begins:] if line.startswith("owl3")] or lines[begins:]
    return f": {told[-1].strip()} (whole log: {log})" if told else f" (log: {log})"
