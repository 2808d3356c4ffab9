"""What verbs share: tables with air between them, commands that can be copied, and how long it still takes."""

from pathlib import Path

import pytest

from owl3.cli.common import DEFAULT_WORKSPACE, TerminalProgress, emit, table, where


def _clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("owl3.cli.common.time.monotonic", lambda: now[0])
    return now


def test_long_work_says_how_long_it_still_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = _clock(monkeypatch)
    progress = TerminalProgress()
    progress.start("train sft", total=480)
    for seconds, units in ((5.0, 40), (12.0, 80), (13.0, 1), (24.0, 119)):
        now[0] = seconds
        progress.advance(units)
    now[0] = 48.0
    progress.finish()
    assert capsys.readouterr().err.splitlines() == [
        "train sft: 120/480 after 12 s, about 31 s left",
        "train sft: 240/480 after 24 s, about 23 s left",
        "train sft: done (48.0 s)",
    ]


@pytest.mark.parametrize(
    ("total", "told"),
    [
        (60, "fetch: 10/60 after 11 s, about 55 s left"),
        (1210, "fetch: 10/1210 after 11 s, about 22 min left"),
        (30_010, "fetch: 10/30010 after 11 s, about 9.2 h left"),
        (None, "fetch: 10 after 11 s"),
    ],
)
def test_what_is_left_is_told_as_a_person_says_it(
    total: int | None, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = _clock(monkeypatch)
    progress = TerminalProgress()
    progress.start("fetch", total=total)
    now[0] = 5.5  # start-up is no part of the pace
    progress.advance(5)
    now[0] = 11.0
    progress.advance(5)
    assert capsys.readouterr().err == f"{told}\n"


def test_nothing_is_foretold_by_the_first_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = _clock(monkeypatch)
    progress = TerminalProgress()
    progress.start("train", total=2800)
    now[0] = 14.0
    progress.advance()
    assert capsys.readouterr().err == "train: 1/2800 after 14 s\n"


def test_tables_stand_apart_from_what_is_before_them(capsys: pytest.CaptureFixture[str]) -> None:
    emit(False, {}, table("first", "a"), "a line", "", table("second", "b"), table("third", "c"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "first"
    for title in ("second", "third"):
        at = lines.index(title)
        assert lines[at - 1] == ""
        assert lines[at - 2] != ""


def test_a_printed_command_names_the_workspace_where_it_must() -> None:
    assert where(DEFAULT_WORKSPACE) == ""
    assert where(Path("my data/w")) == " --workspace 'my data/w'"
