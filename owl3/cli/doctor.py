"""`owl3 doctor` and `owl3 tools`: is this machine ready, and how to mend it."""

from typing import Annotated

import typer
from rich.text import Text

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, Json, Workspace, emit, table
from owl3.errors import CheckFailed


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("doctor")(doctor)
    tools = typer.Typer(help="Tool environments: programs that cannot live beside the rest.", no_args_is_help=True)
    tools.command("list")(list_tools)
    tools.command("install")(install)
    app.add_typer(tools, name="tools")


def doctor(workspace: Workspace = DEFAULT_WORKSPACE, as_json: Json = False) -> None:
    """Check this machine: versions, compiler, tool environments, disk, memory, ports, GPU.

    Example: `owl3 doctor --json`
    """
    from owl3 import doctor as checks

    findings = checks.examine(workspace)
    missing = [finding.check for finding in findings if not finding.ok]
    shown = table("Is this machine ready?", "check", "", "found", *(["what to do"] if missing else []))
    for finding in findings:
        mark = Text("ok", style="green") if finding.ok else Text("MISSING", style="bold red")
        shown.add_row(finding.check, mark, finding.found, *([finding.remedy * (not finding.ok)] if missing else []))
    ready = [] if missing else [f"ready: {len(findings)} checks; look on with: owl3 demo"]
    emit(as_json, {"ok": not missing, "findings": findings}, shown, *ready)
    if missing:
        raise CheckFailed(f"not ready: {', '.join(missing)}")


def list_tools(as_json: Json = False) -> None:
    """List the tool environments and whether they are installed.

    Example: `owl3 tools list`
    """
    from owl3 import tools

    state = {name: tools.is_installed(name) for name in tools.NAMES}
    shown = table(f"Tool environments in {tools.tools_dir()}", "name", "installed")
    for name, installed in state.items():
        shown.add_row(name, "yes" if installed else "no")
    emit(as_json, state, shown)


def install(
    names: Annotated[
        list[str], typer.Argument(help="Some of img2dataset, clip, peers, lmms.", autocompletion=complete.tools)
    ],
    as_json: Json = False,
) -> None:
    """Make tool environments with pip; a no-op for those that are up to date.

    Example: `owl3 tools install img2dataset`
    """
    from owl3 import tools

    made = {name: str(tools.install(name)) for name in names}
    emit(as_json, made, *[f"{name}: {path}" for name, path in made.items()])
