"""`owl3 chat` and `owl3 convert`: use a checkpoint, and rewrite one. Both run as processes: only those load torch."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import typer

from owl3 import lifeline
from owl3.cli.common import Json
from owl3.errors import InputError

Checkpoint = Annotated[Path, typer.Argument(help="A model folder.", show_default=False)]


_SHOWN = "Pictures and clips"
_ANSWER = "The answer"


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("chat")(chat)
    app.command("convert")(convert)


def chat(  # noqa: PLR0917 - options of a command line
    checkpoint: Checkpoint,
    question: Annotated[str, typer.Argument(help="What to ask; `<|image|>` and `<|video|>` place pictures in it.")],
    image: Annotated[list[Path] | None, typer.Option(help="A picture (repeat it).", rich_help_panel=_SHOWN)] = None,
    video: Annotated[list[Path] | None, typer.Option(help="A clip (repeat it).", rich_help_panel=_SHOWN)] = None,
    max_frames: Annotated[int, typer.Option(help="Most frames of a clip.", min=1, rich_help_panel=_SHOWN)] = 16,
    fps: Annotated[
        float, typer.Option(help="Frames per second of a short clip.", min=0.01, rich_help_panel=_SHOWN)
    ] = 1.0,
    system: Annotated[str, typer.Option(help="A system prompt.", rich_help_panel=_ANSWER)] = "",
    cut: Annotated[
        bool | None,
        typer.Option(help="Cut pictures into tiles; by default as the release does.", rich_help_panel=_SHOWN),
    ] = None,
    max_new_tokens: Annotated[
        int, typer.Option(help="Most tokens of an answer.", min=1, rich_help_panel=_ANSWER)
    ] = 512,
    beams: Annotated[int, typer.Option(help="Beam search with so many beams.", min=1, rich_help_panel=_ANSWER)] = 1,
    temperature: Annotated[
        float, typer.Option(help="Sample at this temperature; 0 = greedy.", min=0.0, rich_help_panel=_ANSWER)
    ] = 0.0,
    top_p: Annotated[
        float,
        typer.Option(help="Sample from the likeliest tokens of this mass.", min=0.0, max=1.0, rich_help_panel=_ANSWER),
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the sampling.", rich_help_panel=_ANSWER)] = 0,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"],
        typer.Option(help="Of the weights.", rich_help_panel=_ANSWER),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Ask a checkpoint about pictures and clips; the answer appears as it is written.

    Example: `owl3 chat workspace/runs/demo/sft/model --image a.jpg --image b.jpg "What differs?"`
    """
    _check_model(checkpoint)
    missing = next((path for path in [*(image or []), *(video or [])] if not path.is_file()), None)
    if missing is not None:
        raise InputError(f"{missing}: no such file")
    options = [f"--image={path}" for path in image or []] + [f"--video={path}" for path in video or []]
    options += [f"--max-frames={max_frames}", f"--fps={fps}", f"--max-new-tokens={max_new_tokens}", f"--beams={beams}"]
    options += [f"--temperature={temperature}", f"--top-p={top_p}", f"--seed={seed}", f"--dtype={dtype}"]
    options += [f"--system={system}"] if system else []
    options += [] if cut is None else ["--cut" if cut else "--no-cut"]
    _run("owl3.model.chat", [*options, *["--json"] * as_json, "--", str(checkpoint), question])


def convert(
    source: Checkpoint,
    target: Annotated[Path, typer.Argument(help="A new folder.", show_default=False)],
    to: Annotated[Literal["ours", "released"], typer.Option(help="The layout to write.")] = "ours",
    as_json: Json = False,
) -> None:
    """Rewrite a released mPLUG-Owl3 checkpoint as ours, or one of ours as released; every tensor is accounted for.

    Example: `owl3 convert mPLUG-Owl3-7B-241101 checkpoints/7b-241101`
    """
    _check_model(source)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target}: exists and is not empty; give a new folder")
    _run("owl3.model.convert", [f"--to={to}", *["--json"] * as_json, "--", str(source), str(target)])


def _check_model(folder: Path) -> None:
    """What is told here is told at once: the processes import torch first, which takes seconds."""
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json; give a model folder")


def _run(module: str, arguments: Sequence[str]) -> None:
    """Run a module of ours that prints for itself; its exit code is ours."""
    code = subprocess.run(lifeline.wrap([sys.executable, "-m", module, *arguments]), check=False).returncode
    if code:
        raise typer.Exit(code)
