"""`owl3 bench`: measure this machine, in ratios against a peer in the same run."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from owl3 import lifeline
from owl3.bench.registry import BENCHES
from owl3.cli import complete
from owl3.cli.common import Json, emit, table
from owl3.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bench")(bench)


def bench(
    name: Annotated[
        str, typer.Argument(help="Which benchmark; none lists them.", autocompletion=complete.benches)
    ] = "",
    settings: Annotated[list[str] | None, typer.Argument(help="Its settings.", metavar="KEY=VALUE")] = None,
    out: Annotated[Path, typer.Option(help="Where tables and plots are written.")] = Path("bench-out"),
    run_all: Annotated[
        bool, typer.Option("--all", help="Each one in turn; what needs a GPU only where one is.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a benchmark: a table and a plot are written, and the result is printed as JSON.

    Example: `owl3 bench attention quick=true --out bench-out --json`
    """
    if run_all:
        has_gpu = Path("/dev/nvidia0").exists()
        codes = {each: _run(each, [], out) for each, about in BENCHES.items() if has_gpu or not about.needs_gpu}
        if any(codes.values()):
            raise typer.Exit(max(codes.values()))
        return
    if not name:
        shown = table("Benchmarks", "name", "measures")
        for known, about in BENCHES.items():
            shown.add_row(known, about.summary)
        emit(as_json, {known: about.summary for known, about in BENCHES.items()}, shown)
        return
    if name not in BENCHES:
        raise ConfigError(f"unknown benchmark {name!r}; one of {', '.join(BENCHES)}")
    code = _run(name, settings or [], out)
    if code:
        raise typer.Exit(code)


def _run(name: str, settings: list[str], out: Path) -> int:
    """Run one in a process of its own; return its exit code."""
    command = [sys.executable, "-m", "owl3.bench", name, f"--out={out / name}", *settings]
    return subprocess.run(lifeline.wrap(command), check=False).returncode
