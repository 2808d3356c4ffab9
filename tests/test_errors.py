"""How a program of ours ends: a mistake is one line and an exit code, a bug keeps its traceback."""

import errno
from collections.abc import Callable

import pytest

from owl3.errors import CheckFailed, ConfigError, Interrupted, Owl3Error, exit_code_of


def _raise(error: BaseException) -> Callable[[], None]:
    def program() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (ConfigError("r.yaml: unknown key 'nmae'"), 2, "r.yaml: unknown key 'nmae'"),
        (CheckFailed("card demo: 1 claim is false"), 1, "card demo: 1 claim is false"),
        (Interrupted("fetch: 100 failures in a row"), 3, "fetch: 100 failures in a row"),
        (
            OSError(errno.EROFS, "Read-only file system", "w/x.tar"),
            2,
            "w/x.tar: Read-only file system; give",
        ),
        (OSError(errno.ENOSPC, "No space left on device", "w/x.tar"), 3, "w/x.tar: No space left on device; make room"),
        (KeyboardInterrupt(), 3, "stopped; run the same command again to resume"),
    ],
)
def test_what_a_person_or_the_machine_did_wrong_is_one_line(
    error: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(_raise(error), "owl3 train [rank 1]") == code
    captured = capsys.readouterr()
    assert captured.err.startswith(f"owl3 train [rank 1]: {told}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_program_ends_with_its_own_code_or_0() -> None:
    assert exit_code_of(lambda: None) == 0
    assert exit_code_of(lambda: 1) == 1


def test_what_was_told_already_is_not_told_again(capsys: pytest.CaptureFixture[str]) -> None:
    error = Owl3Error("owl3.train ended with exit code 2")
    error.is_told = True
    assert exit_code_of(_raise(error)) == 2
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("bug", [AssertionError("ours"), OSError(errno.EBADF, "Bad file descriptor"), KeyError("x")])
def test_a_bug_keeps_its_traceback(bug: Exception) -> None:
    with pytest.raises(type(bug)):
        exit_code_of(_raise(bug))


def test_a_broken_pipe_that_is_not_our_output_is_a_bug() -> None:
    with pytest.raises(BrokenPipeError):
        exit_code_of(_raise(BrokenPipeError(errno.EPIPE, "Broken pipe")))
