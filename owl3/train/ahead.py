"""The next step is fetched from the loader's workers while this one is computed.

A worker does not send its pictures: it keeps them in shared memory, and whoever wants them has to ask it for the file
descriptor while it is busy with the next ones. That is milliseconds per micro-batch, in which a step would stand still.
"""

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def one_ahead(steps: Iterator[T]) -> Generator[T, None, None]:
    """Yield what `steps` yields, and have a thread fetch the next one meanwhile: two are in memory at a time.

    What `steps` raises is raised when its turn comes. Closing waits for the fetch that is under way, then lets go of
    `steps`. The first one is fetched here and not in the thread: with it workers are forked, and torch hears of the end
    of a worker only where the main thread has forked it.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="owl3-ahead") as thread:
            step = next(steps, None)
            while step is not None:
                coming = thread.submit(next, steps, None)
                yield step
                step = coming.result()
    finally:
        if isinstance(steps, Generator):
            steps.close()
