"""What verbs share: options, the one way to print a result, and progress on a terminal."""

import json
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichBars
from rich.table import Table
from rich.text import Text

from owl3.errors import InputError


def _open_workspace(context: typer.Context, value: Path) -> Path:
    """Let a verb work in the staging folder of a workspace URL; what it finishes is published."""
    if context.resilient_parsing:
        return value
    from owl3 import remote

    if remote.is_url(value):
        return context.with_resource(remote.opened(value))
    if value.exists() and not value.is_dir():
        raise InputError(f"{value}: is a file; give a folder as --workspace")
    return value


def _find_workspace(context: typer.Context, value: Path) -> Path:
    """The same for verbs that answer for what is there: of a folder that is none, they would say that it holds nothing.

    Raises:
        InputError: there is no such folder, or it holds no artifact of any kind.
    """
    if context.resilient_parsing:
        return value
    from owl3.cards.chain import FOLDERS

    workspace = _open_workspace(context, value)
    if not workspace.exists():
        raise InputError(f"{value}: no such workspace; give one with --workspace or OWL3_WORKSPACE")
    if not any((workspace / folder).exists() for folder in FOLDERS.values()):
        raise InputError(
            f"{value}: is no workspace, it holds none of {', '.join(FOLDERS.values())}; "
            "give one with --workspace or OWL3_WORKSPACE"
        )
    return workspace


def _workspace_option(callback: Callable[[typer.Context, Path], Path]) -> Any:
    return typer.Option(
        "--workspace",
        "-w",
        envvar="OWL3_WORKSPACE",
        callback=callback,
        help="Folder that holds all artifacts, or the URL of one (s3://bucket/workspace).",
    )


Workspace = Annotated[Path, _workspace_option(_open_workspace)]
FoundWorkspace = Annotated[Path, _workspace_option(_find_workspace)]
DEFAULT_WORKSPACE = Path("workspace")
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on the last line of stdout.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]
Recipe = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="Overrides: key.sub=value …", show_default=False, metavar="KEY=VALUE")
]


def workspace_of(artifact: Path, workspace: Path) -> Path:
    """The workspace that an artifact lies in, where none was named: what an artifact refers to lies beside it."""
    if workspace != DEFAULT_WORKSPACE:
        return workspace
    kinds = ("shards", "samples", "plans", "runs")
    return next((folder.parent for folder in artifact.absolute().parents if folder.name in kinds), workspace)


def where(workspace: Path) -> str:
    """The option that a printed command needs, to be copied."""
    return "" if workspace == DEFAULT_WORKSPACE else f" --workspace {shlex.quote(str(workspace))}"


def emit(as_json: bool, data: Any, *human: Any) -> None:
    """Print a result: one JSON line with `--json`, else `human`: strings or rich tables.

    Nothing in them is read as markup: a caption may say "[/b]", a folder may be called "[old]". A string is a line,
    however long: a command that is to be copied has no line break of ours in it.
    """
    if as_json:
        from owl3.config import plain

        spells_all = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
        sys.stdout.write(json.dumps(plain(data), ensure_ascii=not spells_all) + "\n")
        sys.stdout.flush()
        return
    width = None if sys.stdout.isatty() else 120
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    for number, part in enumerate(human):
        if isinstance(part, Table) and part.title:  # rich would break it to the width of its table
            if number and human[number - 1] != "":
                console.print()
            console.print(Text(str(part.title), style="bold"), soft_wrap=True)
            part.title = None
        console.print(part, soft_wrap=isinstance(part, str))


def table(title: str, *columns: str) -> Table:
    """A plain table; columns whose name begins with '>' are aligned to the right."""
    made = Table(title=title, header_style="bold", expand=False)
    for column in columns:
        made.add_column(column.lstrip(">"), justify="right" if column.startswith(">") else "left", overflow="fold")
    return made


class TerminalProgress:
    """A bar on a terminal, plain lines elsewhere; always on stderr."""

    def __init__(self) -> None:
        self._bars: RichBars | None = None
        self._task: Any = None
        self._label = ""
        self._since = 0.0
        self._done = 0
        self._total: int | None = None
        self._told = 0.0
        self._first: tuple[float, int] | None = None  # when the first units were finished, and how many

    def start(self, label: str, total: int | None = None) -> None:
        """Begin a piece of work."""
        self._label, self._total, self._done, self._first = label, total, 0, None
        self._since = self._told = time.monotonic()
        if sys.stderr.isatty():
            label_column = TextColumn("{task.description}", markup=False)
            columns = (label_column, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self._bars = RichBars(*columns, console=Console(stderr=True), transient=True)
            self._bars.start()
            self._task = self._bars.add_task(label, total=total)

    def advance(self, units: int = 1) -> None:
        """Count units; without a terminal, tell every ten seconds."""
        self._done += units
        if self._bars:
            self._bars.advance(self._task, units)
            return
        now = time.monotonic()
        self._first = self._first or (now, self._done)
        if now - self._told > 10:
            self._told = now
            typer.echo(self._line(now), err=True)

    def _line(self, now: float) -> str:
        seconds = now - self._since
        if not self._total:
            return f"{self._label}: {self._done} after {seconds:.0f} s"
        told = f"{self._label}: {self._done}/{self._total} after {seconds:.0f} s"
        began, units = self._first or (now, self._done)
        if self._done == units:  # what comes before the first units says nothing of the others
            return told
        left = (now - began) / (self._done - units) * max(self._total - self._done, 0)
        return f"{told}, about {_span(left)} left"

    def finish(self, note: str = "") -> None:
        """End the piece with one line."""
        if self._bars:
            self._bars.stop()
            self._bars = None
        seconds = time.monotonic() - self._since
        typer.echo(f"{self._label}: {note or 'done'} ({seconds:.1f} s)", err=True)


def _span(seconds: float) -> str:
    """As a person says it: 40 s, 5 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
