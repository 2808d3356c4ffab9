"""`owl3 VERB …`: each verb parses its arguments, calls one library function and prints.

A verb group is a module with `register(app)`. Only this package prints; progress and logs go to stderr, results to
stdout, and with `--json` the last line of stdout is one JSON object.
"""

import contextlib
import importlib
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.exceptions import TyperException
from typer.models import CommandInfo, TyperInfo

from owl3 import __version__
from owl3.cli.usage import explain, tidy
from owl3.errors import READER_GONE, STOPPED, Stopped, exit_code_of

PANELS: dict[str, tuple[str, ...]] = {
    "The whole chain": ("demo", "estimate"),
    "Data": ("sources", "curate", "search", "build", "plan", "inspect"),
    "Model": ("train", "eval", "ablation", "chat"),
    "Accountability": ("cards", "retract", "rights"),
    "This machine": ("doctor", "bench"),
}
"""Modules of this package under the titles of `owl3 --help`, in the order in which it lists their verbs."""


_SUMMARY = "Train an mPLUG-Owl3-style model from web corpora, and answer for every sample it saw."
_EPILOG = """New here? `owl3 doctor`, then `owl3 demo`: the whole chain in minutes, without network or GPU.

Exit codes: 0 done; 1 a check found something false; 2 wrong usage or input; 3 stopped, the same command resumes."""


def build_app() -> typer.Typer:
    """Assemble the command line from its groups."""
    app = typer.Typer(
        name="owl3",
        help=_SUMMARY,
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for panel, groups in PANELS.items():
        for group in groups:
            importlib.import_module(f"owl3.cli.{group}").register(app)
        verbs: list[CommandInfo | TyperInfo] = [*app.registered_commands, *app.registered_groups]
        for verb in verbs:
            if not isinstance(verb.rich_help_panel, str):
                verb.rich_help_panel = panel
    return app


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"owl3 {__version__}")
        raise typer.Exit


def _root(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what is being done, to stderr."),
    version: bool = typer.Option(False, "--version", help="Print the version.", callback=_show_version, is_eager=True),
) -> None:
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(level=level, stream=sys.stderr, format="%(asctime)s %(levelname).1s %(name)s: %(message)s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 a check failed, 2 wrong usage or input, 3 stopped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream := getattr(sys, name), io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what a terminal can't show is no reason to end
    return exit_code_of(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    command = tidy(typer.main.get_command(build_app()))
    streams = sys.stdout, sys.stderr
    try:
        given = list(arguments) if arguments is not None else None
        code = command.main(args=given, prog_name="owl3", standalone_mode=False)
        sys.stdout.flush()
    except TyperException as error:
        raise explain(error) from error
    except typer.Abort as error:
        raise Stopped(STOPPED) from error
    except SystemExit as ended:
        if not isinstance(ended.__context__, BrokenPipeError):
            return ended.code if isinstance(ended.code, int) else 0
        if sys.stdout is streams[0]:
            return READER_GONE  # rich ended a table, or a help, that nobody reads on
        sys.stdout, sys.stderr = streams  # typer took any broken pipe for that
        raise ended.__context__ from None
    if code == _CTRL_C:
        raise Stopped(STOPPED)
    return code if isinstance(code, int) else 0


_CTRL_C = 130
"""What typer makes of a KeyboardInterrupt in a verb."""


def run() -> None:
    """Console entry point."""
    code = main()
    if code == Stopped.exit_code:  # Python would wait for its threads and pools; a second Ctrl-C makes that for ever
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
