"""Several ranks on one machine end with whoever started them, and whoever started them ends as they did."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from owl3 import lifeline
from owl3.errors import InputError
from owl3.launch import run_module
from owl3.train.command import TORCHRUN
from owl3.train.torchrun import end_with_launcher

RANK = """
import os, signal, sys, time
from pathlib import Path
from owl3.train.torchrun import end_with_launcher
def save(*_):
    Path(sys.argv[1], "saved-" + os.environ["RANK"]).touch()
    sys.exit(3)
end_with_launcher(os.environ)
if sys.argv[2] == "fail":
    sys.exit(2 if os.environ["RANK"] == "1" else 0)
signal.signal(signal.SIGTERM, save)
os.write(1, f"{os.getpid()}\\n".encode())  # in one piece: both ranks write to one pipe
time.sleep(120)
"""
COMMAND = """
import sys
from owl3.errors import Owl3Error
from owl3.launch import run_module
try:
    run_module(sys.argv[1], sys.argv[2:])
except Owl3Error as error:
    sys.exit(error.exit_code)
"""


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments of the launcher that start two ranks."""
    (tmp_path / "one_rank.py").write_text(RANK)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    launch = ["--standalone", "--nproc-per-node", "2", "--monitor-interval", "0.1", "--module", "one_rank"]
    return [*launch, str(tmp_path)]


@contextmanager
def started(arguments: list[str]) -> Iterator[tuple["subprocess.Popen[str]", list[psutil.Process]]]:
    """The command, and its two ranks once they run; all that is left of them is killed at the end."""
    line = [sys.executable, "-c", COMMAND, TORCHRUN, *arguments]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as command:
        assert command.stdout is not None
        family: list[psutil.Process] = []
        try:
            ranks = [psutil.Process(int(command.stdout.readline())) for _ in range(2)]
            family += [*psutil.Process(command.pid).children(recursive=True), *ranks]
            yield command, ranks
        finally:
            command.kill()
            for process in family:
                with suppress(psutil.NoSuchProcess):  # its lifeline may be faster
                    process.kill()


def ended(processes: list[psutil.Process], within_s: float = 30) -> bool:
    """Whether all of them end in time; loaded machines are slow, so it is a long time."""
    return not psutil.wait_procs(processes, timeout=within_s)[1]


@pytest.mark.processes
def test_no_rank_outlives_the_command_that_started_it(ranks: list[str]) -> None:
    with started([*ranks, "wait"]) as (command, processes):
        launcher = psutil.Process(processes[0].ppid())
        command.kill()
        assert ended([launcher, *processes])


@pytest.mark.processes
def test_sigterm_lets_every_rank_save_and_ends_with_3(ranks: list[str], tmp_path: Path) -> None:
    with started([*ranks, "wait"]) as (command, processes):
        command.send_signal(signal.SIGTERM)
        assert command.wait() == 3
        assert ended(processes)
    assert {path.name for path in tmp_path.glob("saved-*")} == {"saved-0", "saved-1"}


@pytest.mark.processes
def test_the_exit_code_of_the_rank_that_failed_is_passed_on(ranks: list[str], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{TORCHRUN} ended with exit code 2"):
        run_module(TORCHRUN, [*ranks, "fail"], log=tmp_path / "log")


def test_a_rank_whose_launcher_died_before_it_got_there_ends_at_once() -> None:
    program = "from owl3.train.torchrun import end_with_launcher; end_with_launcher({'OWL3_LAUNCHER_PID': '1234567'})"
    done = subprocess.run([sys.executable, "-c", f"{program}; print('alive')"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (3, b"")


@pytest.mark.parametrize(
    ("environment", "watched"),
    [
        ({"OWL3_LAUNCHER_PID": "7", "TORCHELASTIC_RUN_ID": "none"}, [7]),
        ({"TORCHELASTIC_RUN_ID": "none"}, [None]),
        ({}, []),
    ],
)
def test_a_rank_watches_its_launcher_and_a_lone_process_outlives_its_shell(
    environment: dict[str, str], watched: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int | None] = []
    monkeypatch.setattr(lifeline, "end_with_parent", lambda parent=None: seen.append(parent))
    end_with_launcher(environment)
    assert seen == watched
