"""SIGTERM means: finish the step, save, end. A scheduler sends it some seconds before it kills."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Self

_EXIT_INTERRUPTED = 3


class StopSignal:
    """Notes SIGTERM and SIGINT; the loop asks after every step. Gives the handlers back on leaving.

    When saving takes longer than the grace period, the process ends without it: what was saved before is complete,
    and the scheduler's SIGKILL would have ended it anyway, perhaps with the next job already waiting for the machine.
    """

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._wanted = False
        self._timer: threading.Timer | None = None
        self._before: dict[int, object] = {}

    def __call__(self) -> bool:
        """Whether this process was asked to stop."""
        return self._wanted

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal returned

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self._wanted:
            return
        self._wanted = True
        self._timer = threading.Timer(self._grace_s, self._give_up, [number])
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self, number: int) -> None:
        name = signal.Signals(number).name
        sys.stderr.write(f"owl3: {name}: not saved within {self._grace_s:g} s; run again to resume from before\n")
        sys.stderr.flush()
        os._exit(_EXIT_INTERRUPTED)
