"""`owl3 search`: find samples of a curated corpus by text or by picture."""

from pathlib import Path
from typing import Annotated

import typer

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, FoundWorkspace, Json, emit, table
from owl3.errors import ConfigError, InputError


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("search")(search)


def search(  # noqa: PLR0917 - options of a command line
    corpus: Annotated[
        str,
        typer.Argument(
            help="A curated corpus: the name of a folder in shards/.",
            autocompletion=complete.folders("shards/*/manifest.json"),
        ),
    ],
    query: Annotated[str, typer.Argument(help="What the pictures should show.")] = "",
    image: Annotated[Path | None, typer.Option(help="A picture to find the like of.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many to show.")] = 10,
    serve: Annotated[bool, typer.Option("--serve", help="Run clip-retrieval's own page and service instead.")] = False,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where it listens, on 127.0.0.1.")] = 1234,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Search a corpus that was curated with a `clip` section.

    Example: `owl3 search photos "a red bicycle"`

    With --serve clip-retrieval's page is at http://127.0.0.1:PORT, and its client asks /knn-service there.
    """
    from owl3.curate.embed import Query
    from owl3.curate.embed import search as find
    from owl3.curate.embed import serve as serve_index
    from owl3.manifest import read_manifest

    if [bool(query), image is not None, serve].count(True) != 1:
        raise ConfigError("search: give one of a text, --image, --serve")
    clip = read_manifest(workspace / "shards" / corpus).recipe.get("clip")
    if clip is None:
        raise InputError(f"shards/{corpus} was curated without a clip section, so it has no index")
    if serve:
        raise typer.Exit(serve_index(workspace, corpus, clip["model"], port))
    found = find(workspace, corpus, clip["model"], Query(query or None, image), count=count)
    shown = table(f"Most like {query or image}", ">score", "sample", "caption", "url")
    for row in found:
        shown.add_row(f"{row['score']:.3f}", row["image_path"], str(row.get("caption")), str(row.get("url")))
    emit(as_json, {"found": found}, shown)
