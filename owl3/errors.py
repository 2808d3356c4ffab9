"""What can go wrong, and which exit code it becomes.

    Owl3Error            2  a person's mistake or a bad input: one line that names file and key and says what to do
    ├── ConfigError      2  a recipe or an option is wrong
    ├── InputError       2  a file, folder or URL is missing, damaged or of another kind
    │   └── StaleError   2  an artifact exists, but was made by another recipe or other parents
    ├── CheckFailed      1  a check found something false (lint, audit, gates)
    └── Interrupted      3  stopped part-way; running the same command again resumes
        └── Stopped      3  because somebody asked for it: nothing that is tried again by itself

A bad *sample* is none of these: it is a drop, counted with its reason. A bug of ours is an `AssertionError`. What the
machine refuses (a full disk, a folder that may not be written, a file that is gone) is an `OSError` where it happens,
and one of these where a process ends. Every program of ours ends by `exit_code_of`.
"""

import contextlib
import errno
import logging
import os
import re
import select
import sys
from collections.abc import Callable

from owl3.secrecy import guard_output, hide

logger = logging.getLogger(__name__)


class Owl3Error(Exception):
    """A person's mistake or a bad input; the message is one line that says what to do, and holds no secret."""

    exit_code: int = 2
    is_told: bool = False
    """A process of ours said the reason on our own stderr: a second line would only repeat that it ended."""

    def __init__(self, message: str) -> None:
        super().__init__(hide(message))


class ConfigError(Owl3Error):
    """A recipe, an option or a combination of them is wrong."""


class InputError(Owl3Error):
    """A file, folder or URL is missing, damaged or of another kind than asked for."""


class StaleError(InputError):
    """An artifact exists, but was made by another recipe or from other parents."""


class CheckFailed(Owl3Error):
    """A check ran to its end and found something false."""

    exit_code = 1


class Interrupted(Owl3Error):
    """Work stopped part-way and left resumable state."""

    exit_code = 3


class Stopped(Interrupted):
    """Somebody asked the work to stop, so nobody should take it up again by himself."""


_FULL = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = {
    errno.EROFS: "give a workspace that can be written",
    errno.EACCES: "give this user the right to it",
    errno.EPERM: "give this user the right to it",
    errno.ENOENT: "bring it back, or make it again",
    errno.ENOTDIR: "a file stands where a folder is needed",
    errno.EEXIST: "a file stands where a folder is needed",
    errno.EISDIR: "a folder stands where a file is needed",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "let this process open more files (ulimit -n)",
    errno.ENFILE: "this machine has too many files open",
    errno.EIO: "the disk failed",
    errno.ESTALE: "the network disk lost it",
}


def refusal(error: OSError) -> Owl3Error | None:
    """What the machine refused as one line that says what to do; None for an error of another sort."""
    place = error.filename2 or error.filename  # of a renaming, where it should have gone
    what = f"{place}: {error.strerror}" if place else str(error.strerror)
    if error.errno in _FULL:
        return Interrupted(f"{what}; make room and run again to resume")
    return InputError(f"{what}; {_REFUSED[error.errno]}") if error.errno in _REFUSED else None


def damage(error: Exception) -> Owl3Error | None:
    """A damaged table that DuckDB or Arrow could not read, as one line; None for an error of another sort."""
    is_theirs = type(error).__module__.startswith(("duckdb", "_duckdb", "pyarrow"))
    if not is_theirs and not (isinstance(error, OSError) and error.errno is None):  # some of Arrow's are plain OSErrors
        return None
    said = str(error).strip().split("\n", maxsplit=1)[0]
    named = re.search(r"'([^']+\.parquet)'", said)
    if named is None:
        return None
    return InputError(f"{named[1]}: can't be read, it is damaged ({said}); bring it back, or make its artifact again")


STOPPED = "stopped; run the same command again to resume"
READER_GONE = 141
"""As a shell tells of a program that SIGPIPE ended: `owl3 … | head` is no mistake, and nothing is said."""


def exit_code_of(program: Callable[[], int | None], name: str = "owl3") -> int:
    """Run a program to its end: what a person or the machine did wrong is one line on stderr, and an exit code.

    Args:
        program: What to run; it may return an exit code of its own, nothing is 0.
        name: What the line begins with.

    Raises:
        Exception: it is a bug of ours, or of what we call: it ends the process with its traceback.
    """
    guard_output()
    try:
        return program() or 0
    except Owl3Error as error:
        found = error
    except KeyboardInterrupt:
        found = Stopped(STOPPED)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _readers_are_gone():
            return READER_GONE
        mended = refusal(error) if isinstance(error, OSError) else None
        mended = mended or damage(error)
        if mended is None:
            raise
        logger.info("where it was refused", exc_info=True)  # owl3 --verbose
        found = mended
    if not found.is_told:
        with contextlib.suppress(BrokenPipeError):  # nobody reads it; the exit code says it too
            sys.stderr.write(f"{name}: {found}\n")
    return found.exit_code


def _readers_are_gone() -> bool:
    """Whether nobody reads our output any more; what is still to be written then goes nowhere, in silence."""
    gone = [number for number in (1, 2) if _is_unread(number)]
    for number in gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(gone)


def _is_unread(number: int) -> bool:
    asked = select.poll()
    asked.register(number, 0)
    return any(happened & (select.POLLERR | select.POLLHUP) for _, happened in asked.poll(0))
