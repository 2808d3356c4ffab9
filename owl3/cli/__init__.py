"""`owl3 VERB …`: each verb parses its arguments, calls one library function and prints.

A verb group is a module with `register(app)`. Only this package prints; progress and logs go to stderr, results to
stdout, and with `--json` the last line of stdout is one JSON object.
"""

import importlib
import logging
import sys
from collections.abc import Sequence

import typer
from typer.models import CommandInfo, TyperInfo

from owl3 import __version__
from owl3.errors import Interrupted, Owl3Error, refusal
from owl3.secrecy import guard_output

logger = logging.getLogger(__name__)

PANELS: dict[str, tuple[str, ...]] = {
    "The whole chain": ("demo", "estimate"),
    "Data": ("sources", "curate", "search", "build", "plan", "inspect"),
    "Model": ("train", "eval", "ablation", "chat"),
    "Accountability": ("cards", "retract", "rights"),
    "This machine": ("doctor", "bench"),
}
"""Modules of this package under the titles of `owl3 --help`, in the order in which it lists their verbs."""


_SUMMARY = "Train an mPLUG-Owl3-style model from web corpora, and answer for every sample it saw."


def build_app() -> typer.Typer:
    """Assemble the command line from its groups."""
    app = typer.Typer(
        name="owl3",
        help=_SUMMARY,
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
    try:
        guard_output()
        command = typer.main.get_command(build_app())
        command.main(args=list(arguments) if arguments is not None else None, prog_name="owl3")
    except Owl3Error as error:
        if not error.is_told:
            typer.echo(f"owl3: {error}", err=True)
        return error.exit_code
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        logger.info("where it was refused", exc_info=True)  # --verbose
        typer.echo(f"owl3: {refused}", err=True)
        return refused.exit_code
    except KeyboardInterrupt:  # while it starts
        return _stopped()
    except SystemExit as ended:
        if ended.code == _CTRL_C or isinstance(ended.__context__, typer.Abort):
            return _stopped()
        return ended.code if isinstance(ended.code, int) else 0
    return 0


_CTRL_C = 130
"""What typer makes of a KeyboardInterrupt in a verb."""


def _stopped() -> int:
    typer.echo("owl3: stopped; run the same command again to resume", err=True)
    return Interrupted.exit_code


def run() -> None:
    """Console entry point."""
    sys.exit(main())
