"""Work in threads stops with what started it, and with nothing else; Ctrl-C leaves worker processes alone."""

import contextvars
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from owl3 import stopping
from owl3.errors import Stopped
from owl3.stopping import WorkerPool, check_stop, stopped_together
from owl3.storage import range_lock


def work(started: threading.Semaphore) -> None:
    """Go on for ever, but for the check."""
    started.release()
    while True:
        check_stop()
        time.sleep(0.005)


def test_what_a_block_started_in_threads_stops_with_it() -> None:
    started = threading.Semaphore(0)
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(KeyboardInterrupt), stopped_together():
            runs = [pool.submit(contextvars.copy_context().run, work, started) for _ in range(2)]
            for _ in runs:
                assert started.acquire(timeout=60)
            raise KeyboardInterrupt
        for run in runs:
            with pytest.raises(Stopped, match="run again to resume"):
                run.result(timeout=60)


def test_a_block_that_ends_well_stops_nothing_and_blocks_know_nothing_of_each_other() -> None:
    with stopped_together():
        inside = contextvars.copy_context()
    inside.run(check_stop)
    with pytest.raises(ValueError, match="other"), stopped_together():
        raise ValueError("other")
    check_stop()
    inside.run(check_stop)


def test_waiting_for_somebodys_shards_can_be_stopped(tmp_path: Path) -> None:
    lock = tmp_path / ".set.shards"
    started = threading.Semaphore(0)

    def second() -> None:
        started.release()
        with range_lock(lock, 0, 4):
            raise AssertionError("the first holds them")

    with ThreadPoolExecutor(1) as pool, range_lock(lock, 0, 4):
        with pytest.raises(KeyboardInterrupt), stopped_together():
            run = pool.submit(contextvars.copy_context().run, second)
            assert started.acquire(timeout=60)
            raise KeyboardInterrupt
        with pytest.raises(Stopped):
            run.result(timeout=60)


def test_ctrl_c_does_not_reach_workers_and_they_end_with_the_pool() -> None:
    """A terminal sends it to the whole group: the one who started them decides what becomes of their work."""
    with WorkerPool(1, _set_word, "told") as pool:
        assert pool.submit(_interrupt_myself).result() == "told"
        worker = pool.submit(os.getpid).result()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_what_a_worker_raises_comes_back() -> None:
    with WorkerPool(1) as pool, pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()


_words: list[str] = []


def _set_word(word: str) -> None:
    _words.append(word)


def _interrupt_myself() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return _words[0]


def test_a_worker_whose_pool_died_while_it_started_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody would ever give it work, nor tell it to go."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr("owl3.lifeline.os._exit", sys.exit)
    with pytest.raises(SystemExit) as ended:
        stopping._begin(gone.pid, None, ())
    assert ended.value.code == 3
