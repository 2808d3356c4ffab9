"""`owl3 curate`: URL tables to shards."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, Overrides, Recipe, TerminalProgress, Workspace, emit, table
from owl3.errors import ConfigError

if TYPE_CHECKING:
    from owl3.curate.run import CurateConfig


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("curate")(curate)


def curate(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    only: Annotated[list[str] | None, typer.Option(help="Curate these sets only, by name or number (0, 1 …).")] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Fetch rows again that failed for a transient reason; makes a new version.")
    ] = False,
    resolve: Annotated[
        list[str] | None,
        typer.Option(help="HOST=ADDRESS:PORT: where a host really is, as curl's --resolve.", envvar="OWL3_RESOLVE"),
    ] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fetch, check rights, filter, deduplicate and decontaminate; every row is kept or counted.

    Example: `owl3 curate flows/recipes/local-photos.yaml --only photos`

    What is done already stays; a killed run goes on where it was.
    """
    from owl3.curate.run import curate as curate_shards
    from owl3.curate.sources.prepare import prepare
    from owl3.manifest import Manifest
    from owl3.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    chosen = _choose(loaded.curate, only, recipe)
    if dry_run:
        done = {config.name: (workspace / "shards" / config.name / "manifest.json").is_file() for config in chosen}
        emit(as_json, done, *(f"{name}: {'done' if is_done else 'to do'}" for name, is_done in done.items()))
        return
    progress = TerminalProgress()
    wanted = {config.source for config in chosen}
    for source in loaded.sources:
        if source.name in wanted:
            prepare(source, workspace, progress)
    where = parse_resolve(resolve or [])
    made: dict[str, Manifest] = {
        config.name: curate_shards(config, workspace, resolve=where, retry=retry, progress=progress)
        for config in chosen
    }
    result = {name: {"digest": manifest.digest, "counts": manifest.counts} for name, manifest in made.items()}
    emit(as_json, result, *(_counts(name, manifest, workspace) for name, manifest in made.items()))


def _choose(configs: Sequence["CurateConfig"], only: list[str] | None, recipe: Path) -> list["CurateConfig"]:
    """The sets that `--only` names, by name or by their number in the recipe."""
    by_name = {str(number): config for number, config in enumerate(configs)} | {c.name: c for c in configs}
    unknown = next((name for name in only or () if name not in by_name), None)
    if unknown is not None:
        names = ", ".join(config.name for config in configs) or "none"
        raise ConfigError(f"{recipe}: curate has no set {unknown!r}; it has: {names}")
    return [by_name[name] for name in only] if only else list(configs)


def parse_resolve(values: list[str]) -> dict[str, str]:
    """Read HOST=ADDRESS:PORT entries; one value (OWL3_RESOLVE) may hold several, separated by commas."""
    entries = [entry.strip() for value in values for entry in value.split(",") if entry.strip()]
    pairs = [entry.partition("=") for entry in entries]
    wrong = next((entry for entry, pair in zip(entries, pairs, strict=True) if not pair[2]), None)
    if wrong is not None:
        raise ConfigError(f"--resolve {wrong}: write it as HOST=ADDRESS:PORT")
    return {host: target for host, _, target in pairs}


def _counts(name: str, manifest: Any, workspace: Path) -> Any:
    shown = table(os.fspath(workspace / "shards" / name), "rows", ">count")
    shown.add_row("seen", str(manifest.counts.seen))
    shown.add_row("kept", str(manifest.counts.kept))
    for reason, count in manifest.counts.dropped.items():
        shown.add_row(reason, str(count))
    return shown
