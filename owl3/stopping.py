"""Stop what runs in threads: a thread can't be ended from outside, so long work looks whether it shall go on.

    with stopped_together():              left by an exception (Ctrl-C, a cancelled flow run): all that it started stops
        pool.submit(work)                 in threads that copy the context, as those of Prefect's task runner do
    check_stop()                          in every loop that waits: raises when it is time to go

Whoever runs in the main thread needs none of it: signals raise there. Neither do processes: they have lifelines, and
those of a `WorkerPool` are left alone by Ctrl-C, which a terminal sends to everybody: the one who started them decides.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from multiprocessing import get_context
from typing import Any, ParamSpec, TypeVar

from owl3 import lifeline
from owl3.errors import Stopped

P = ParamSpec("P")
T = TypeVar("T")

_ASKED: ContextVar[threading.Event | None] = ContextVar("asked_to_stop", default=None)


@contextmanager
def stopped_together() -> Iterator[None]:
    """Let everything that the block starts stop at its next `check_stop` when the block is left by an exception."""
    event = threading.Event()
    token = _ASKED.set(event)
    try:
        yield
    except BaseException:
        event.set()
        raise
    finally:
        _ASKED.reset(token)


def check_stop() -> None:
    """Go on, unless what started this is gone.

    Raises:
        Stopped: it is; what is done stays, and running again goes on there.
    """
    event = _ASKED.get()
    if event is not None and event.is_set():
        raise Stopped("stopped with what started it; run again to resume")


class WorkerPool(ProcessPoolExecutor):
    """Spawned processes that end with this one, and that Ctrl-C does not reach, not even while they start."""

    def __init__(self, processes: int, initializer: Callable[..., None] | None = None, *arguments: Any) -> None:
        super().__init__(
            processes, get_context("spawn"), initializer=_begin, initargs=(os.getpid(), initializer, arguments)
        )

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """As the library's; a process that it starts inherits that SIGINT is blocked."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return super().submit(fn, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int, initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
    lifeline.end_with_parent(parent, by_kernel=False)  # it may have died while this process imported
    if initializer is not None:
        initializer(*arguments)
