"""`owl3 sources list|show|prepare`: the catalogue of corpora, and URL tables from their metadata."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, TerminalProgress, Workspace, emit, table
from owl3.errors import ConfigError


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    group = typer.Typer(no_args_is_help=True, help="The catalogue of corpora, and URL tables from their metadata.")
    group.command("list")(list_corpora)
    group.command("show")(show)
    group.command("prepare")(prepare)
    app.add_typer(group, name="sources")


def list_corpora(as_json: Json = False) -> None:
    """List the corpora whose columns, licences and hazards are known.

    Example: `owl3 sources list`
    """
    from owl3.curate.sources.corpus import corpus_names, find_corpus

    found = [find_corpus(name) for name in corpus_names()]
    shown = table("Corpora", "name", "media", "what it is", "licence of the media")
    for corpus in found:
        shown.add_row(corpus.name, corpus.media, corpus.title, corpus.media_licence)
    emit(as_json, {"corpora": [corpus.name for corpus in found]}, shown)


def show(
    name: Annotated[str, typer.Argument(help="A corpus of the catalogue.", autocompletion=complete.corpora)],
    as_json: Json = False,
) -> None:
    """Show what is known about a corpus: a record, its columns, who may use it, what goes wrong.

    Example: `owl3 sources show coyo-700m`
    """
    import importlib

    import yaml

    from owl3.curate.sources.corpus import find_corpus

    corpus = find_corpus(name)
    module = importlib.import_module(f"owl3.curate.sources.catalogue.{name.replace('-', '_')}")
    recipe = {"sources": [{"name": name, "corpus": name}], "curate": [{"name": name, "source": name, "corpus": name}]}
    parts = [
        f"{corpus.title}  {corpus.home}",
        str(module.__doc__).strip(),
        f"\nmetadata: {corpus.metadata}\nlicence of the metadata: {corpus.metadata_licence}"
        f"\nlicence of the media: {corpus.media_licence}\ncite: {corpus.citation}",
        f"\ndefault filters ({corpus.filters_from}):\n{yaml.safe_dump(corpus.curate, sort_keys=False)}",
        "hazards:\n" + "\n".join(f"- {hazard}" for hazard in corpus.hazards),
        f"\nchecked: {corpus.checked}",
        f"\nin a recipe:\n{yaml.safe_dump(recipe, sort_keys=False)}",
    ]
    emit(as_json, corpus, *parts)


def prepare(  # noqa: PLR0917 - options of a command line
    name: Annotated[
        str,
        typer.Argument(
            help="A corpus of the catalogue, or with --from a name of your own.", autocompletion=complete.corpora
        ),
    ],
    files: Annotated[
        list[str] | None, typer.Option("--from", help="Metadata tables or captions json; patterns are allowed.")
    ] = None,
    columns: Annotated[str, typer.Option("--map", help="OURS=THEIRS,… as in url=URL,caption=TEXT,extra=SCORE")] = "",
    media: Annotated[Literal["image", "video"] | None, typer.Option(help="What the URLs lead to.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the media of a folder are served.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the media where the table has none.")] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="Take so many rows only.")] = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Turn a metadata dump into a URL table; dirty rows are counted by reason.

    Example: `owl3 sources prepare mine --from 'dump/*.parquet' --map url=URL,caption=TEXT --licence CC-BY-4.0`
    """
    from owl3.config import validate
    from owl3.curate.sources.corpus import corpus_names, find_corpus
    from owl3.curate.sources.prepare import SourceConfig
    from owl3.curate.sources.prepare import prepare as prepare_source

    if name not in corpus_names() and not files:
        raise ConfigError(
            f"sources prepare {name}: not in the catalogue (owl3 sources list); give its tables by --from"
        )
    if not files and not find_corpus(name).source.get("hub"):
        raise ConfigError(f"sources prepare {name}: its metadata is not on the hub; fetch it, and give it by --from")
    given: dict[str, Any] = {"media": media, "base_url": base_url, "licence": licence, "max_rows": max_rows}
    given = {key: value for key, value in given.items() if value is not None}
    if name in corpus_names():
        given["corpus"] = name
    if files:
        given |= {"files": [str(Path(file).absolute()) for file in files], "hub": None}
    if columns:
        given["columns"] = _mapping(columns)
    config = validate({"name": name} | given, SourceConfig, where=f"sources prepare {name}")
    if dry_run:
        emit(as_json, config, f"would make sources/{name} from {config.hub or ', '.join(config.files)}")
        return
    manifest = prepare_source(config, workspace, TerminalProgress())
    shown = table(f"sources/{name}", "rows", ">count")
    for label, count in {"seen": manifest.counts.seen, "kept": manifest.counts.kept, **manifest.counts.dropped}.items():
        shown.add_row(label, str(count))
    emit(as_json, {"name": name, "digest": manifest.digest, "counts": manifest.counts}, shown)


def _mapping(text: str) -> dict[str, str | list[str]]:
    """Read `url=URL,caption=TEXT`; `extra=COLUMN` may stand several times."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    wrong = next((part for part in pairs if not part[1] or not part[0] or not part[2]), None)
    if wrong is not None:
        raise ConfigError(f"--map {text}: write it as url=URL,caption=TEXT")
    named = {ours.strip(): theirs.strip() for ours, _, theirs in pairs if ours.strip() != "extra"}
    extra = [theirs.strip() for ours, _, theirs in pairs if ours.strip() == "extra"]
    return named | ({"extra": extra} if extra else {})
