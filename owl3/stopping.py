"""Stop what runs in threads: a thread can't be ended from outside, so long work looks whether it shall go on.

    with stopped_together():              left by an exception (Ctrl-C, a cancelled flow run): all that it started stops
        pool.submit(work)                 in threads that copy the context, as those of Prefect's task runner do
    check_stop()                          in every loop that waits: raises when it is time to go

Whoever runs in the main thread needs none of it: signals raise there. Neither do processes: they have lifelines.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from owl3.errors import Stopped

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
