"""Children that never outlive us: a command run under a lifeline is killed, with all it started, when its parent dies.

Run by file path with nothing but the standard library, so it costs some 30 ms:

    python -IS owl3/lifeline.py PARENT COMMAND ARGUMENT…

PARENT is the process id of whoever starts it: one that was killed meanwhile leaves nothing behind. It starts the
command in a session of its own, passes SIGTERM and SIGINT on to that whole group, ends with the command's exit code,
and kills the group as soon as the process that started it is gone (also by SIGKILL). Where a lifeline itself is killed,
the kernel ends the command.
"""

import ctypes
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
_PR_SET_PDEATHSIG = 1
_EXIT_INTERRUPTED = 3


def wrap(command: Sequence[str]) -> list[str]:
    """The same command, under a lifeline; to be started by this very process."""
    return [sys.executable, "-IS", str(Path(__file__).resolve()), str(os.getpid()), *command]


def end_with_parent(parent: int | None = None, *, by_kernel: bool = True) -> None:
    """Let this process end when the one that started it dies; it would live on otherwise.

    Args:
        parent: Process id of the one that started this, where it is known: when that is gone already, this process
            ends at once.
        by_kernel: With `parent`, the kernel kills this process later, even while it hangs in a call that holds Python's
            lock. Not for workers of a pool: the kernel watches the thread that started them, which may end before.
    """
    if parent is not None and by_kernel:
        _let_kernel_kill_with_parent()
    watched = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == watched:
            time.sleep(_POLL_S)
        os._exit(_EXIT_INTERRUPTED)

    if os.getppid() != watched:
        os._exit(_EXIT_INTERRUPTED)
    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _let_kernel_kill_with_parent() -> None:
    """Ask for SIGKILL when the parent's thread that started us ends; Linux alone has it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main(parent: int, command: Sequence[str]) -> int:
    """Run `command` until it ends or the parent does; return its exit code (128 + n when signal n ended it)."""
    if os.getppid() != parent:
        return _EXIT_INTERRUPTED
    child: subprocess.Popen[bytes] | None = None
    came_early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        if child is None:
            came_early.append(number)
        else:
            _signal_group(child.pid, number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, pass_on)
    # preexec_fn is safe here: this process has one thread.
    child = subprocess.Popen(command, start_new_session=True, preexec_fn=_let_kernel_kill_with_parent)  # noqa: PLW1509
    for number in came_early:
        _signal_group(child.pid, number)
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
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
