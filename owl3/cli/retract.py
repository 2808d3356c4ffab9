"""`owl3 retract`: take something out of a corpus, and plan how its models go on without it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from owl3.cli.cards import Datacards, datacards_of
from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, FoundWorkspace, Json, TerminalProgress, emit, table
from owl3.errors import CheckFailed, InputError

_WHAT = "What to take out"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("retract")(retract)


def retract(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why; it stands in the tombstone.")] = "",
    url: Annotated[
        list[str] | None, typer.Option("--url", help="One URL (repeat it, and all of these).", rich_help_panel=_WHAT)
    ] = None,
    domain: Annotated[
        list[str] | None, typer.Option("--domain", help="A host with all its subdomains.", rich_help_panel=_WHAT)
    ] = None,
    licence: Annotated[
        list[str] | None, typer.Option("--licence", help="All of a licence.", rich_help_panel=_WHAT)
    ] = None,
    sha256: Annotated[
        list[str] | None, typer.Option("--sha256", help="Of a picture, as fetched or stored.", rich_help_panel=_WHAT)
    ] = None,
    sample_id: Annotated[
        list[str] | None, typer.Option("--sample-id", help="As `owl3 trace` shows it.", rich_help_panel=_WHAT)
    ] = None,
    image: Annotated[
        list[Path] | None,
        typer.Option("--image", help="A picture file: found by its hash, then by its looks.", rich_help_panel=_WHAT),
    ] = None,
    removal_list: Annotated[
        list[Path] | None, typer.Option("--list", help="A file with one of these per line.", rich_help_panel=_WHAT)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Write the tombstones; without it, only show.")] = False,
    purge: Annotated[
        bool, typer.Option("--purge", help="Make the artifacts anew without the bytes and all that was said of them.")
    ] = False,
    keep_metadata: Annotated[
        bool, typer.Option("--keep-metadata", help="With --purge: take the bytes out, let URLs and sources stay.")
    ] = False,
    rerun: Annotated[
        str | None, typer.Option("--rerun", help="RUN=NEW: plan a clean run, keep its clean part.")
    ] = None,
    remove: Annotated[str | None, typer.Option("--remove-run", help="Delete a run that a clean one replaced.")] = None,
    dry_run: DryRun = False,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    datacards: Datacards = None,
    as_json: Json = False,
) -> None:
    """Show what a retraction hits; with --yes bury it, with --purge take it out, with --rerun plan a clean run.

    Example: `owl3 retract --domain birds.example.org --reason "request of 20 Nov" --yes --purge --rerun demo=demo-2`

    A purge takes bytes and words: pictures, captions, URLs, in sources, evidence, search index, report and cards too.
    Ids and hashes stay, so that the chain can be audited and the row does not come back; --keep-metadata lets URLs and
    sources stay. Every file is looked through at the end; exit 1: something of ours still says it. Write no name into
    --reason: it stays. Dumps, other copies, backups and logs elsewhere are named where they are seen, never changed.
    """
    from owl3 import retraction, takedown
    from owl3.cards import retract as library
    from owl3.cards import runs
    from owl3.cards.subjects import Subject, understand

    if remove:
        gone = [] if dry_run or not yes else retraction.remove_run(workspace, remove, reason)
        note = f"removed: {', '.join(gone)}" if gone else f"would remove run {remove} with its plans; add --yes"
        emit(as_json, {"removed": gone}, note)
        return

    if keep_metadata and not purge:
        raise InputError("--keep-metadata says what --purge leaves; give both, or neither")
    renamed = _rename(rerun) if rerun else None  # before anything is written
    subjects: list[Subject] = []
    given = {"url": url, "domain": domain, "licence": licence, "sha256": sha256, "sample_id": sample_id, "image": image}
    for what, values in given.items():
        subjects += [understand(str(value), what) for value in values or []]  # type: ignore[arg-type]
    for path in removal_list or []:
        subjects += library.read_list(path)
    impact = library.assess(workspace, subjects, datacards_of(workspace, datacards))
    todo = retraction.plan_rerun(workspace, impact.plans)
    act = yes and not dry_run and not impact.is_empty
    progress = TerminalProgress()
    buried = library.bury(workspace, impact, reason) if act else 0
    taken = takedown.Takedown(())
    if act and purge:
        folder = datacards_of(workspace, datacards)
        taken = takedown.take_down(workspace, impact.ids, keep_metadata=keep_metadata, datacards_dir=folder)
    left = retraction.prepare_rerun(workspace, *renamed, progress=progress) if act and renamed else []
    data = runs.as_data(impact) | {"buried": buried, "rerun": runs.as_data(left or todo)} | runs.as_data(taken)
    data.pop("matched")
    lines = [*_impact_lines(impact, buried, act, reason), *_rerun_lines(left or todo, act and bool(rerun))]
    emit(as_json, runs.as_data(data), *lines, *_takedown_lines(taken))
    if taken.left:
        raise CheckFailed(
            f"{taken.left[0]}: still says something of what was taken out ({len(taken.left)} files in all)"
        )


def _takedown_lines(taken: Any) -> list[Any]:
    lines = []
    for made in taken.purged:
        done = f"{made.removed} sample{'' if made.removed == 1 else 's'} taken out" if made.removed else "sealed again"
        lines.append(f"{made.kind} {made.name}: {done}, digest now {made.new_digest[:16]}")
    lines += [f"withdrawn: {path}; render it again" for path in taken.withdrawn]
    lines += [f"still says it: {path}" for path in taken.left]
    lines += [f"still says it, and is yours to change: {path}" for path in taken.others]
    if taken.texts is not None and not (taken.left or taken.others):
        lines.append(f"every file was looked through: none of {taken.texts:,} URLs, captions and other words is left")
    return lines


def _rename(text: str) -> tuple[str, str]:
    old, separator, new = text.partition("=")
    if not (old and separator and new):
        raise InputError(f"--rerun {text}: write it as RUN=NEW, for example demo=demo-2")
    return old, new


def _rerun_lines(stages: Sequence[Any], prepared: bool) -> list[Any]:
    if not stages:
        return []
    shown = table("Re-run", "run", "stage", ">first tainted step", ">goes on from step", ">steps to train", ">hours")
    for stage in stages:
        first = "-" if stage.first_tainted is None else str(stage.first_tainted)
        hours = "?" if stage.hours is None else f"{stage.hours:.2f}"
        shown.add_row(stage.run, stage.stage, first, str(stage.resume_from), str(stage.steps_to_train), hours)
    hint = f"train it: owl3 train RECIPE name={stages[0].run}" if prepared else "prepare it with --rerun RUN=NEW"
    return [shown, hint]


def _impact_lines(impact: Any, buried: int, done: bool, reason: str) -> list[Any]:
    lines: list[Any] = [f"matches nothing: {subject.what} {subject.text}" for subject in impact.missing]
    lines += [f"not hit: {warning}" for warning in impact.warnings]
    if impact.is_empty:
        return lines
    shown = table("What is hit", "what", ">amount", "where")
    shown.add_row("pictures kept", f"{impact.urls_kept:,}", "")
    shown.add_row("built samples", f"{impact.built:,}", "")
    for entry in impact.artifacts:
        shown.add_row(
            str(entry["kind"]), str(len(entry["shards"])), f"{entry['name']}: shards {', '.join(entry['shards'][:8])}"
        )
    for hit in impact.plans:
        shown.add_row("plan", f"{len(hit.steps):,} steps", f"{hit.plan}: first at step {hit.first}")
    for hit in impact.checkpoints:
        how = f"from step {hit.first_step}" if hit.first_step is not None else f"through {hit.inherited_from}"
        shown.add_row("checkpoint", "1", f"{hit.checkpoint.label}: {how}")
    for entry in impact.cards:
        shown.add_row("card", "1", entry["name"])
    lines.append(shown)
    wanted = "--yes" if reason else "--reason TEXT --yes"
    lines.append(f"{buried:,} tombstones written" if done else f"nothing was written; add {wanted} to bury these")
    return lines
