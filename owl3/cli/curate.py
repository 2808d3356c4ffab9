"""`owl3 curate`: URL tables to shards."""

import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, Overrides, Recipe, TerminalProgress, Workspace, emit, table
from owl3.errors import ConfigError, Owl3Error

if TYPE_CHECKING:
    from owl3.curate.config import CurateConfig
    from owl3.curate.sources.prepare import SourceConfig


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("curate")(curate)


def curate(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="A set to curate, by name or number (0, 1 …; repeat it); without it all.",
            autocompletion=complete.named_in("curate"),
        ),
    ] = None,
    retry: Annotated[
        bool, typer.Option("--retry", help="Fetch rows again that failed for a transient reason; makes a new version.")
    ] = False,
    resolve: Annotated[
        list[str] | None,
        typer.Option(
            help="HOST=ADDRESS:PORT: where a host really is, as curl's --resolve (repeat it).", envvar="OWL3_RESOLVE"
        ),
    ] = None,
    shards: Annotated[
        str, typer.Option(help="FIRST:LAST (half-open): fetch only these shards; writing them needs all.")
    ] = "",
    snapshot: Annotated[
        datetime | None, typer.Option(formats=["%Y-%m-%d"], help="Fetch as of this day: sets called NAME-DATE.")
    ] = None,
    backfill: Annotated[
        bool, typer.Option("--backfill", help="Also make anew what another recipe or source made (stale by digest).")
    ] = False,
    wait: Annotated[bool, typer.Option(help="Wait for who works on these shards, or give up at once.")] = True,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Fetch, check rights, filter, deduplicate and decontaminate; every row is kept or counted.

    Example: `owl3 curate flows/recipes/local-photos.yaml --only photos`

    What is done already stays; a killed run goes on where it was. Several machines share a corpus by taking a range of
    shards each (`--shards 0:64`, `--shards 64:128`, …) on a common workspace; the same command without it writes them.

    Pictures go through img2dataset. `engine.distributor: none` in a set of the recipe, or
    `curate.NAME.engine.distributor=none` behind it, does without, to the same bytes.
    """
    from owl3.curate import partitions
    from owl3.curate.run import curate as curate_shards
    from owl3.curate.sources.prepare import prepare
    from owl3.manifest import Manifest
    from owl3.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    day = snapshot.date() if snapshot else None
    chosen = [partitions.snapshot(config, day) for config in _choose(loaded.curate, only, recipe)]
    if not chosen:
        raise ConfigError(f"{recipe}: has no `curate` section, so there is nothing to curate")
    numbers, where = parse_shards(shards), parse_resolve(resolve or [])
    _check_sources(loaded.sources, chosen, workspace, recipe)
    if retry and numbers is not None:
        raise ConfigError("--retry adds to a finished set as a whole; give it without --shards")
    if not wait and numbers is None:
        raise ConfigError("--no-wait is for one of several who share a set; give it with --shards")
    if dry_run:
        states = {config.name: _states(config, workspace, numbers) for config in chosen}
        emit(as_json, states, *(f"{name}: {_describe(found)}" for name, found in states.items()))
        for config in chosen:
            _tell_what_would_stop(config, workspace, states[config.name])
        return
    progress = TerminalProgress()
    wanted = {config.source for config in chosen}
    for source in loaded.sources:
        if source.name in wanted:
            prepare(source, workspace, progress)
    if backfill:
        for config in chosen:
            partitions.prepare_to_renew(config, workspace)
    if numbers is not None:
        parts = {
            config.name: partitions.fetch_partition(
                config, workspace, part, resolve=where, wait=wait, progress=progress
            )
            for config in chosen
            for part in partitions.cut(config, workspace, most=1, only=numbers)
        }
        emit(as_json, parts, *(f"{part.partition.label}: {part.counts.seen} rows fetched" for part in parts.values()))
        return
    made: dict[str, Manifest] = {
        config.name: curate_shards(config, workspace, resolve=where, retry=retry, renew=backfill, progress=progress)
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


def parse_shards(text: str) -> tuple[int, int] | None:
    """Read FIRST:LAST; nothing means all.

    Raises:
        ConfigError: it is not two rising numbers.
    """
    if not text:
        return None
    first, separator, last = text.partition(":")
    if not separator or not first.isdecimal() or not last.isdecimal() or int(first) >= int(last):
        raise ConfigError(f"--shards {text}: write it as FIRST:LAST, as in 0:64 for the first 64 shards")
    return int(first), int(last)


def _check_sources(
    sources: Sequence["SourceConfig"], chosen: Sequence["CurateConfig"], workspace: Path, recipe: Path
) -> None:
    """Refuse a set whose source neither the recipe has nor anybody prepared: most often it is misspelt."""
    from owl3.curate.sources.urltables import source_folder

    known = [source.name for source in sources]
    for config in chosen:
        if config.source not in known and not source_folder(workspace, config.source).is_dir():
            raise ConfigError(
                f"{recipe}: curate {config.name}: no source {config.source!r}; the recipe has: "
                f"{', '.join(known) or 'none'} (and none of that name was prepared in {workspace / 'sources'})"
            )


def _states(config: "CurateConfig", workspace: Path, numbers: tuple[int, int] | None) -> dict[str, int]:
    """How far a set is: the number of its shards in each state, `unknown` while its source is not prepared."""
    from owl3.curate import partitions
    from owl3.curate.sources.urltables import source_folder

    if not (source_folder(workspace, config.source) / "manifest.json").is_file():
        return {"unknown": 0}
    parts = partitions.cut(config, workspace, most=1 << 30, only=numbers)
    return dict(sorted(Counter(partitions.states(config, workspace, parts)).items()))


def _tell_what_would_stop(config: "CurateConfig", workspace: Path, states: dict[str, int]) -> None:
    """Say on stderr what would end the run at once; a dry run itself is no failure."""
    from owl3.curate.config import check_ready

    if set(states) == {"done"}:
        return
    if "stale" in states:
        typer.echo(f"{config.name}: what lies there is of another recipe or source; --backfill makes it anew", err=True)
    try:
        check_ready(config, workspace)
    except Owl3Error as error:
        typer.echo(f"{config.name}: would stop at once: {error}", err=True)


def _describe(states: dict[str, int]) -> str:
    if states == {"unknown": 0}:
        return "its source is not prepared yet; the run does that first, and then knows its shards"
    return ", ".join(f"{count} shards {state}" for state, count in states.items())


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
