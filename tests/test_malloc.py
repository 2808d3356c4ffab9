"""Memory of one picture serves the next."""

import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from owl3.malloc import keep_freed_pages


def faults_while_pictures_come_and_go() -> int:
    def work() -> None:
        for _ in range(100):
            del [np.ones(size, dtype=np.uint8) for size in (400_000, 1_200_000, 900_000)][:]

    work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(sys.platform != "linux", reason="malloc of glibc")
def test_memory_of_one_picture_serves_the_next() -> None:
    """In new processes: it is set for good, and what this one has freed so far has set its thresholds, too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=keep_freed_pages) as kept:
        assert kept.submit(faults_while_pictures_come_and_go).result() < 100
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as returned:
        assert returned.submit(faults_while_pictures_come_and_go).result() > 10_000
