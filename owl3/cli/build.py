"""`owl3 build` and `owl3 lint`: make samples, and check that they keep the contract."""

from pathlib import Path
from typing import Annotated, Any

import typer

from owl3.cli import complete
from owl3.cli.common import (
    DEFAULT_WORKSPACE,
    DryRun,
    Json,
    Overrides,
    Recipe,
    TerminalProgress,
    Workspace,
    emit,
    table,
    workspace_of,
)
from owl3.errors import CheckFailed, ConfigError


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("build")(build)
    app.command("lint")(lint)


def build(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A set to build (repeat it); without it all.", autocompletion=complete.named_in("build")),
    ] = None,
    materialize: Annotated[
        bool, typer.Option("--materialize", help="Copy the media of each set NAME of references to NAME-bytes.")
    ] = False,
    processes: Annotated[int | None, typer.Option(min=1, help="Worker processes; default: as many as pay.")] = None,
    dry_run: DryRun = False,
    as_json: Json = False,
) -> None:
    """Turn curated shards and instruction files into sample sets; what is done already stays.

    Example: `owl3 build flows/recipes/demo.yaml --only pairs`
    """
    from owl3.build.materialize import materialize as copy_media
    from owl3.build.run import build as build_samples
    from owl3.build.tokenizer import make_tokenizer
    from owl3.manifest import Manifest
    from owl3.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    names = [cfg.name for cfg in loaded.build]
    unknown = next((name for name in only or () if name not in names), None)
    if unknown is not None:
        raise ConfigError(f"{recipe}: build has no set {unknown!r}; it has: {', '.join(names) or 'none'}")
    if not names:
        raise ConfigError(f"{recipe}: has no `build` section, so there is nothing to build")
    chosen = [cfg for cfg in loaded.build if not only or cfg.name in only]
    if dry_run:
        plan = {
            cfg.name: {"builder": cfg.builder, "count": cfg.count, "done": _is_done(workspace, cfg.name)}
            for cfg in chosen
        }
        shown = table("Would build", "name", "builder", ">count", "done")
        for name, entry in plan.items():
            shown.add_row(name, str(entry["builder"]), str(entry["count"]), "yes" if entry["done"] else "no")
        emit(as_json, plan, shown)
        return
    progress = TerminalProgress()
    if loaded.tokenizer is not None:
        make_tokenizer(loaded.tokenizer, workspace)
    made: dict[str, Manifest] = {}
    for cfg in chosen:
        made[cfg.name] = build_samples(cfg, workspace, progress, processes=processes)
        if materialize and cfg.store == "references":
            made[f"{cfg.name}-bytes"] = copy_media(workspace, cfg.name, f"{cfg.name}-bytes", progress)
    shown = table("Samples", "name", ">seen", ">kept", ">images", ">text tokens", "dropped", "digest")
    for name, manifest in made.items():
        dropped = ", ".join(f"{reason} {count}" for reason, count in manifest.counts.dropped.items())
        numbers = (manifest.counts.seen, manifest.counts.kept, manifest.stats["images"], manifest.stats["text_tokens"])
        shown.add_row(name, *map(str, numbers), dropped, manifest.digest[:12])
    result = {name: {"digest": m.digest, "counts": m.counts, "stats": m.stats} for name, m in made.items()}
    emit(as_json, result, shown)


def lint(
    path: Annotated[Path, typer.Argument(help="A folder of shards or samples, or one tar.", show_default=False)],
    workspace: Workspace = DEFAULT_WORKSPACE,
    sample: Annotated[int | None, typer.Option(min=1, help="Look at so many samples only, chosen evenly.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Show at most so many findings.")] = 50,
    as_json: Json = False,
) -> None:
    """Check that shards or samples keep the contract; exit 1 when they do not.

    Example: `owl3 lint workspace/samples/pairs --sample 500`
    """
    from owl3.build.lint import lint as check

    report = check(path, workspace_of(path, workspace), sample=sample)
    shown = table(f"Findings in {path}", "rule", "where", "what")
    for finding in report.findings[:limit]:
        shown.add_row(finding.rule, finding.where, finding.what)
    data: dict[str, Any] = {
        "ok": not report.findings,
        "checked": report.checked,
        "total": report.total,
        "findings": [finding.to_json() for finding in report.findings],
        "confidence": report.confidence,
    }
    emit(as_json, data, *([shown] if report.findings else []), report.summary)
    if report.findings:
        raise CheckFailed(f"{path}: {len(report.findings)} findings")


def _is_done(workspace: Path, name: str) -> bool:
    return (workspace / "samples" / name / "manifest.json").is_file()
