"""A child under a lifeline ends with its parent, and passes its exit code on."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from owl3 import lifeline
from owl3.errors import CheckFailed, InputError, Interrupted
from owl3.launch import run_module, wait_for


def _gone(pid: int, within_s: float = 30) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.05)
    return False


def test_the_exit_code_is_passed_on() -> None:
    done = subprocess.run(lifeline.wrap([sys.executable, "-c", "import sys; sys.exit(5)"]), check=False)
    assert done.returncode == 5


def test_a_parent_that_was_killed_before_the_lifeline_began_leaves_nothing_behind() -> None:
    command = lifeline.wrap([sys.executable, "-c", "print('runs')"])
    gone = subprocess.Popen(["true"])
    gone.wait()
    command[command.index(str(os.getpid()))] = str(gone.pid)  # somebody else's child by now: its parent is no more
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"")


@pytest.mark.processes
def test_sigkill_of_the_parent_ends_child_and_grandchild() -> None:
    grandchild = "import subprocess; p = subprocess.Popen(['sleep', '60']); print(p.pid, flush=True); p.wait()"
    parent = (
        "import subprocess, sys; from owl3 import lifeline; "
        f"subprocess.Popen(lifeline.wrap([sys.executable, '-c', {grandchild!r}])).wait()"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert _gone(pid)


@pytest.mark.processes
def test_sigkill_of_the_lifeline_itself_ends_the_command() -> None:
    line = lifeline.wrap([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(60)"])
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert _gone(pid)


@pytest.mark.processes
def test_an_error_tells_what_the_process_itself_said_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what a launcher says after it, and not what an earlier run wrote into the same log."""
    (tmp_path / "talks.py").write_text(
        "import sys; print('owl3 train [rank 1]: the folder is in use'); print('E1123 failed: rank 1'); sys.exit(2)"
    )
    (tmp_path / "breaks.py").write_text("import sys; print('Segmentation fault'); sys.exit(9)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(InputError, match=r"exit code 2: owl3 train \[rank 1\]: the folder is in use \(whole log"):
        run_module("talks", [], log=tmp_path / "log")
    with pytest.raises(Interrupted, match="exit code 9: Segmentation fault"):
        run_module("breaks", [], log=tmp_path / "log")


@pytest.mark.processes
@pytest.mark.parametrize(("code", "error"), [(1, CheckFailed), (2, InputError), (3, Interrupted), (9, Interrupted)])
def test_exit_codes_become_errors(code: int, error: type[Exception], tmp_path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "ends_with.py").write_text("import sys; print('the reason'); sys.exit(int(sys.argv[1]))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(error, match="the reason"):
        run_module("ends_with", [str(code)], log=tmp_path / "log")


@pytest.mark.processes
def test_what_an_orchestrators_handler_of_sigterm_raises_ends_the_child_and_is_raised_on() -> None:
    """Prefect's does: that is how a cancelled flow run ends, instead of trying again what it stopped itself."""

    class CancelledError(Exception):
        pass

    def handler(*_: object) -> None:
        raise CancelledError

    child = subprocess.Popen(["sleep", "60"])
    before = signal.signal(signal.SIGTERM, handler)
    try:
        with pytest.raises(CancelledError):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
            wait_for(child, "sleep")
        assert signal.getsignal(signal.SIGTERM) is handler, "Prefect takes no cancellation while it is another"
    finally:
        signal.signal(signal.SIGTERM, before)
    assert child.returncode == -signal.SIGTERM


@pytest.mark.processes
def test_a_pool_worker_ends_when_its_parent_is_killed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    script = tmp_path / "pool.py"
    script.write_text(
        "import os, time\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from owl3.lifeline import end_with_parent\n"
        "if __name__ == '__main__':\n"
        "    with ProcessPoolExecutor(1, get_context('spawn'), initializer=end_with_parent) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert _gone(pid)
