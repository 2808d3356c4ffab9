"""`owl3 bench`: measure this machine, in ratios against a peer in the same run."""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from owl3 import lifeline
from owl3.bench.registry import BENCHES
from owl3.cli.common import Json, emit, table
from owl3.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("bench")(bench)


def bench(
    name: Annotated[str, typer.Argument(help="Which benchmark; none lists them.")] = "",
    settings: Annotated[list[str] | None, typer.Argument(help="KEY=VALUE …", metavar="[KEY=VALUE]…")] = None,
    out: Annotated[Path, typer.Option(help="Where tables and plots are written.")] = Path("bench-out"),
    as_json: Json = False,
) -> None:
    """Run a benchmark: a table and a plot are written, and the result is printed as JSON.

    Example: `owl3 bench attention quick=true --out bench-out --json`
    """
    if not name:
        shown = table("Benchmarks", "name", "measures")
        for known, about in BENCHES.items():
            shown.add_row(known, about.summary)
        emit(as_json, {known: about.summary for known, about in BENCHES.items()}, shown)
        return
    if name not in BENCHES:
        raise ConfigError(f"unknown benchmark {name!r}; one of {', '.join(BENCHES)}")
    command = [sys.executable, "-m", "owl3.bench", name, f"--out={out / name}", *(settings or [])]
    code = subprocess.run(lifeline.wrap(command), check=False).returncode
    if code:
        raise typer.Exit(code)
