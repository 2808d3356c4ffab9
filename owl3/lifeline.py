"""Children that never outlive us: a command run under a lifeline is killed, with all it started, when its parent dies.

Run by file path with nothing but the standard library, so it costs some 30 ms:

    python -IS owl3/lifeline.py COMMAND ARGUMENT…

It starts the command in a session of its own, passes SIGTERM and SIGINT on to that whole group, ends with the
command's exit code, and kills the group as soon as the process that started it is gone (also by SIGKILL).
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_POLL_S = 0.2


def wrap(command: Sequence[str]) -> list[str]:
    """The same command, under a lifeline."""
    return [sys.executable, "-IS", str(Path(__file__).resolve()), *command]


def end_with_parent() -> None:
    """Let this process end when the one that started it dies; for workers of a process pool, which would live on."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(3)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def main(command: Sequence[str]) -> int:
    """Run `command` until it ends or the parent does; return its exit code (128 + n when signal n ended it)."""
    parent = os.getppid()
    child = subprocess.Popen(command, start_new_session=True)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        _signal_group(child.pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    while True:
        try:
            code = child.wait(timeout=_POLL_S)
        except subprocess.TimeoutExpired:
            if os.getppid() != parent:
                _signal_group(child.pid, signal.SIGKILL)
            continue
        _signal_group(child.pid, signal.SIGKILL)  # grandchildren that the command left behind
        return code if code >= 0 else 128 - code


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        time.sleep(0)  # already gone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
