"""The frame of the command line: help for every verb, errors as one line, exit codes."""

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from owl3.cli import build_app, main
from owl3.cli.common import DEFAULT_WORKSPACE, emit, table, workspace_of


def _commands() -> list[tuple[tuple[str, ...], Any]]:
    found: list[tuple[tuple[str, ...], Any]] = []

    def walk(command: object, path: tuple[str, ...]) -> None:
        children = getattr(command, "commands", None)
        if not children:
            found.append((path, command))
        for name, child in (children or {}).items():
            walk(child, (*path, name))

    walk(typer.main.get_command(build_app()), ())
    return found


def _verbs() -> list[tuple[str, ...]]:
    return [path for path, _ in _commands()]


@pytest.mark.parametrize("verb", _verbs(), ids=" ".join)
def test_every_verb_has_help_with_an_example(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"owl3 {verb[0]}" in shown
    assert "Example" in shown, f"`owl3 {' '.join(verb)} --help` shows no example"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["curat"], "no such command 'curat'. Did you mean 'curate', 'chat'? (owl3 --help)"),
        (["curate"], "curate: missing argument 'RECIPE' (owl3 curate --help)"),
        (["plan", "r.yaml", "--stag", "sft"], "plan: no such option: --stag; did you mean --stage? (owl3 plan --help)"),
        (["sources", "shwo"], "sources: no such command 'shwo'. Did you mean 'show'? (owl3 sources --help)"),
        (["inspect", "x", "--step", "two"], "inspect: invalid value for '--step': Input should be a valid integer"),
        (["eval", "m", "--method", "guess"], "eval: invalid value for '--method': 'guess' is not one of 'generate',"),
    ],
    ids=lambda part: part[0] if isinstance(part, list) else "",
)
def test_wrong_usage_is_one_line_that_names_the_verb(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"owl3: {told}")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize("verb", ["curate", "build", "plan", "train", "launch"])
def test_a_recipe_without_anything_to_do_is_told(verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else a recipe for something else would seem to be done."""
    recipe = tmp_path / "r.yaml"
    recipe.write_text("name: x\n")
    assert main([verb, str(recipe), "--workspace", str(tmp_path / "w"), "--json"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"owl3: {recipe}: has no ")
    assert captured.out == ""
    assert not (tmp_path / "w").exists()


def test_no_arguments_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert "owl3 doctor" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("verb", _verbs(), ids=" ".join)
def test_help_shows_no_type_of_python(verb: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """`--json <bool>` and `--only <list[str]>` say nothing to who types them."""
    assert main([*verb, "--help"]) == 0
    shown = capsys.readouterr().out
    assert not {word for word in ("<bool>", "list[", "<path>", "<str>", "<int") if word in shown}


def test_every_option_says_what_it_does() -> None:
    mute = [
        f"{' '.join(path)} {parameter.opts[-1]}"
        for path, command in _commands()
        for parameter in command.params
        if not parameter.help
    ]
    assert not mute


def test_a_wrong_input_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "install", "nonesuch"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "owl3: no tool environment 'nonesuch'; there are: img2dataset, clip, peers, lmms\n"
    assert captured.out == ""


def test_json_is_one_object_on_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tools", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["img2dataset"] is True


def test_what_is_printed_is_never_read_as_markup(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "[/b] [red]a :smile: \\[x]"
    shown = table(hostile, hostile)
    shown.add_row(hostile)
    emit(False, {}, hostile, shown)
    assert capsys.readouterr().out.count(hostile) == 4


def test_a_title_longer_than_its_table_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit(False, {}, table("/a/long/way/to/a/workspace/shards/photos", "rows"))
    assert capsys.readouterr().out.startswith("/a/long/way/to/a/workspace/shards/photos\n")


def test_a_printed_command_is_one_line_however_long(capsys: pytest.CaptureFixture[str]) -> None:
    command = "python -m owl3.train " + "--overlong option " * 30
    emit(False, {}, command)
    assert capsys.readouterr().out == command + "\n"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EROFS, 2), (errno.EACCES, 2), (errno.ENOENT, 2), (errno.ENOSPC, 3)]
)
def test_what_the_machine_refuses_is_one_line(
    number: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A read-only folder, a file that is gone, a full disk: no bug of ours, so no traceback."""

    def refuse() -> list[str]:
        raise OSError(number, os.strerror(number), "w/shards/x.tar")

    monkeypatch.setattr("owl3.curate.sources.corpus.corpus_names", refuse)
    assert main(["sources", "list"]) == code
    told = capsys.readouterr().err
    assert told.startswith(f"owl3: w/shards/x.tar: {os.strerror(number)}; ")
    assert told.count("\n") == 1


def test_ctrl_c_is_one_line_and_code_3(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt() -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr("owl3.curate.sources.corpus.corpus_names", interrupt)
    assert main(["sources", "list"]) == 3
    assert capsys.readouterr().err == "owl3: stopped; run the same command again to resume\n"


@pytest.mark.parametrize(
    "verb", [["sources", "list"], ["sources", "list", "--json"], ["curate", "--help"]], ids=" ".join
)
def test_a_reader_that_has_seen_enough_ends_it_in_silence(verb: list[str]) -> None:
    """As in `owl3 sources list | head -1`: here the reader has gone before the first byte."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "owl3", *verb], stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)
    assert done.stderr == ""
    assert done.returncode == 141  # as a shell tells of SIGPIPE


def test_a_closed_stdout_is_written_to_nobody() -> None:
    """As a cron job or a daemon may start it: `owl3 … >&-`."""
    command = f"{shlex.quote(sys.executable)} -m owl3 sources list >&-"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_who_is_stopped_waits_for_no_thread() -> None:
    """Python joins its threads and pools when it ends, and a second Ctrl-C would leave that hanging for ever."""
    code = (
        "import threading, owl3.cli as cli\n"
        "threading.Thread(target=threading.Event().wait).start()\n"
        "cli.main = lambda: 3\n"
        "cli.run()"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, check=False)
    assert done.returncode == 3


def test_what_a_process_of_ours_said_is_not_said_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """`owl3 export` and `eval` start processes that tell the reason on the same terminal."""
    assert main(["eval", str(tmp_path), "--tasks", f"scenes-single={tmp_path}", "--out", str(tmp_path / "o")]) == 2
    told = capfd.readouterr().err
    assert told.count("\n") == 1
    assert f"{tmp_path}: no config.json" in told


def test_another_error_of_the_machine_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("owl3.curate.sources.corpus.corpus_names", fail)
    with pytest.raises(OSError, match="Bad file"):
        main(["sources", "list"])


def test_an_artifact_lies_in_the_workspace_around_it_unless_one_is_named(tmp_path: Path) -> None:
    plan = tmp_path / "mine" / "plans" / "demo" / "sft"
    assert workspace_of(plan, DEFAULT_WORKSPACE) == tmp_path / "mine"
    assert workspace_of(plan, tmp_path / "other") == tmp_path / "other"
    assert workspace_of(tmp_path / "loose.tar", DEFAULT_WORKSPACE) == DEFAULT_WORKSPACE


def test_doctor_finds_this_machine_ready(capsys: pytest.CaptureFixture[str]) -> None:
    """After `make setup` nothing is missing: compiler, versions, tool environment. What a moment lacks is no fault."""
    code = main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    missing = {finding["check"] for finding in report["findings"] if not finding["ok"]}
    assert missing <= {"memory", "disk", "shared memory", "open files", "Prefect server"}
    assert code == (1 if missing else 0)


@pytest.mark.parametrize("ok", [True, False])
def test_doctor_says_what_to_do_where_something_is_missing_and_what_is_next_where_nothing_is(
    ok: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from owl3 import doctor

    found = [doctor.Finding(check="ninja", ok=ok, found="none", remedy="pip install ninja")]
    monkeypatch.setattr(doctor, "examine", lambda workspace: found)
    assert main(["doctor"]) == (0 if ok else 1)
    captured = capsys.readouterr()
    assert ("pip install ninja" in captured.out) is not ok
    assert ("ready: 1 checks" in captured.out) is ok
    assert captured.err == ("" if ok else "owl3: not ready: ninja\n")


def test_help_loads_no_library_that_a_verb_runs() -> None:
    """`owl3 --help` answers at once, and a broken area breaks its own verbs only."""
    code = (
        "import sys; from owl3.cli import build_app; build_app(); "
        "print(sorted({'pydantic', 'yaml', 'pyarrow', 'duckdb', 'numpy', 'aiohttp', 'av', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
