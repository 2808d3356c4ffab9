"""`owl3 card`, `audit`, `trace`, `report`, `index`: what a corpus and its models answer for."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, FoundWorkspace, Json, TerminalProgress, emit, table, where
from owl3.errors import CheckFailed, InputError

Datacards = Annotated[
    Path | None,
    typer.Option(
        "--datacards",
        envvar="OWL3_DATACARDS",
        help="Folder of facts files and rendered cards; without it WORKSPACE/datacards, else ./datacards.",
    ),
]


def datacards_of(workspace: Path, given: Path | None, name: str = "") -> Path:
    """Where cards lie: as said, else where `owl3 run` puts them, else in the folder where one works.

    Args:
        name: A card that is asked for; a folder that has it goes before one that does not.

    Raises:
        InputError: what was said is no folder.
    """
    if given is not None:
        if not given.is_dir():
            raise InputError(f"--datacards {given}: no such folder")
        return given
    places = [place for place in (workspace / "datacards", Path("datacards")) if place.is_dir()]
    return next((place for place in places if (place / name).exists()), next(iter(places), Path("datacards")))


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("card")(card)
    app.command("audit")(audit)
    app.command("trace")(trace)
    app.command("report")(report)
    app.command("index")(index)


def card(
    name: Annotated[
        str,
        typer.Argument(help="Folder under datacards/ with facts.yaml; or RUN/STAGE.", autocompletion=complete.cards),
    ],
    *,
    shards: Annotated[
        list[str] | None, typer.Option("--shards", help="A shard artifact that the card covers (repeat it).")
    ] = None,
    samples: Annotated[
        list[str] | None, typer.Option("--samples", help="A sample artifact that it covers (repeat it).")
    ] = None,
    version: Annotated[str, typer.Option("--card-version", help="Version of the card.")] = "1.0.0",
    run: Annotated[str | None, typer.Option("--run", help="RUN/STAGE: render its model card instead.")] = None,
    other: Annotated[str | None, typer.Option("--diff", help="Compare CARD with this one instead.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Render a draft again over other inputs.")] = False,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    datacards: Datacards = None,
    as_json: Json = False,
) -> None:
    """Render a datacard from manifests, ledger and facts.yaml, or with --run the model card of a trained stage.

    Without --shards a datacard covers all artifacts of the workspace.

    Example: `owl3 card demo --shards photos --samples together`, `owl3 card demo/1.0.0 --diff demo/1.1.0`
    """
    datacards = datacards_of(workspace, datacards, name.split("/")[0])
    if other is not None:
        _show_diff(find_card(name, datacards), find_card(other, datacards), as_json)
        return
    if run is None and "/" in name and (workspace / "runs" / name).is_dir():
        name, run = name.split("/")[0], name
    if run is not None:
        from owl3.cards.model_card import model_card

        made = model_card(run, name, workspace, datacards)
        place = datacards / made.name
        emit(as_json, {"name": made.name, "digest": made.digest, "folder": place}, f"{place}: digest {made.digest}")
        return
    from owl3.cards.config import CardConfig
    from owl3.cards.render import card as render
    from owl3.config import validate

    fields = {
        "name": name,
        "version": version,
        "shards": shards or _finished(workspace, "shards"),
        "samples": samples if samples is not None else [] if shards else _finished(workspace, "samples"),
    }
    config = validate(fields, CardConfig, f"card {name}")
    manifest = render(config, workspace, datacards, replace=replace, progress=TerminalProgress())
    folder = datacards / name / version
    emit(
        as_json,
        {"name": manifest.name, "digest": manifest.digest, "folder": folder, "counts": manifest.counts},
        f"{folder}: digest {manifest.digest}",
        f"look at {folder / 'card.html'}, check it with: owl3 audit {folder}{where(workspace)}",
    )


def _show_diff(before: Path, after: Path, as_json: bool) -> None:
    from owl3.cards.diff import diff
    from owl3.cards.runs import as_data

    changes = diff(before, after)
    lines = [f"- {change.sentence}" for change in changes] or ["the two cards tell of the same"]
    emit(as_json, {"changes": as_data(changes)}, f"from {before} to {after}", *lines)


def _finished(workspace: Path, kind: str) -> list[str]:
    return sorted(path.parent.name for path in workspace.glob(f"{kind}/*/manifest.json"))


def find_card(text: str, datacards: Path) -> Path:
    """The folder of a card given as a path, NAME (its newest version) or NAME/VERSION.

    Raises:
        InputError: naming the cards there are.
    """
    for folder in (Path(text), datacards / text):
        if (folder / "manifest.json").is_file():
            return folder
        versions = [path.parent for path in sorted(folder.glob("*/manifest.json")) if path.parent.name[:1].isdecimal()]
        if versions:
            return max(versions, key=_version_key)
    found = [*datacards.glob("*/*/manifest.json"), *datacards.glob("*/models/*/manifest.json")]
    names = sorted(path.parent.relative_to(datacards).as_posix() for path in found)
    raise InputError(
        f"{text!r}: no rendered card (in {datacards}: {', '.join(names) or 'none'}); render one with owl3 card"
    )


def _version_key(folder: Path) -> tuple[list[int], bool, str]:
    numbers, _, draft = folder.name.partition("-")
    return [int(part) for part in numbers.split(".") if part.isdecimal()], not draft, draft


def audit(
    name: Annotated[
        str,
        typer.Argument(
            metavar="CARD", help="NAME, NAME/VERSION or the folder of a card.", autocompletion=complete.cards
        ),
    ],
    *,
    sample: Annotated[float | None, typer.Option("--sample", help="Read a random part only, e.g. 0.02.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Which random part.")] = 0,
    expect: Annotated[str | None, typer.Option("--expect", help="The card's digest as published elsewhere.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="List the claims that hold, too.")] = False,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    datacards: Datacards = None,
    as_json: Json = False,
) -> None:
    """Derive every figure of a card again from the shards, offline, and walk its digests back to the sources.

    Example: `owl3 audit demo`
    """
    from owl3.cards.audit import audit as run_audit

    folder = find_card(name, datacards_of(workspace, datacards, name))
    result = run_audit(folder, workspace, sample=sample, seed=seed, expect=expect, progress=TerminalProgress())
    false = [check for check in result.checks if not check.passed]
    shown = table(f"Audit of {result.card}", "", "area", "subject", "stated", "found")
    for check in result.checks if show_all else false:
        mark = Text("holds", style="green") if check.passed else Text("FALSE", style="red")
        shown.add_row(mark, check.area, *map(_short, (check.subject, check.stated, check.found)))
    by_area: dict[str, list[int]] = {}
    for check in result.checks:
        by_area.setdefault(check.area, [0, 0])[not check.passed] += 1
    tally = ", ".join(
        f"{area} {held} hold{f', {failed} FALSE' if failed else ''}" for area, (held, failed) in by_area.items()
    )
    data = {
        "card": result.card,
        "digest": result.digest,
        "passed": result.passed,
        "checks": len(result.checks),
        "false": [check.line() for check in false],
        "first_false": false[0].line() if false else None,
        "claims": [
            {"area": c.area, "subject": c.subject, "passed": c.passed, "stated": c.stated, "found": c.found}
            for c in result.checks
        ],
        "rows": result.num_rows,
        "bytes": result.num_bytes,
        "sample": result.sample,
        "statement": result.statement,
    }
    emit(
        as_json,
        data,
        *([shown] if false or show_all else []),
        f"{len(result.checks)} checks: {tally}",
        result.statement,
    )
    if false:
        raise CheckFailed(
            f"card {result.card}: {len(false)} of {len(result.checks)} claims are false; "
            f"first: {false[0].line(most=80)}"
        )


def _short(text: str, most: int = 120) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def trace(
    subject: Annotated[
        str,
        typer.Argument(help="URL, domain, licence, sha256, picture file, sample id, RUN/STAGE:STEP or checkpoint."),
    ],
    *,
    what: Annotated[str | None, typer.Option("--as", help="What it is, where the guess is wrong.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write it as a page, too: drawn, with pictures.")] = None,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    datacards: Datacards = None,
    as_json: Json = False,
) -> None:
    """Follow one thing back to its source and forward to every sample, step, checkpoint, score and card it touched.

    Example: `owl3 trace http://photos.owl3.test/train/000123.jpg --html trace.html`
    """
    from owl3.cards import runs
    from owl3.cards.subjects import understand
    from owl3.cards.trace import trace as run_trace

    found = run_trace(workspace, understand(subject, what), datacards_of(workspace, datacards))  # type: ignore[arg-type]
    if html is not None:
        from owl3.report.tracing import write_trace_page

        write_trace_page(html, found, workspace)
    drawn = [f"drawn in {html}"] if html else []
    emit(as_json, {"found": found.found, **runs.as_data(found)}, *_trace_tables(found), *drawn)


def _url_line(row: dict[str, Any]) -> str:
    """One row of the ledger on one line; grouped rows (of a checkpoint) have amounts instead of URLs."""
    from owl3.cards.words import shown

    if "amount" in row:
        return f"{row['amount']:,} from {row['domain']}, licence {row['licence']}, in shards {row['artifact']}"
    fate = "kept" if row["decision"] == "kept" else f"dropped: {row['reason']}"
    place = f"shards {row['artifact']}/{row['shard']}"
    about = f"{fate}, {place}, {row['licence']}, {row['sample_id']}"
    return f"{shown(row['url'] or 'a URL that was cleared', 120)} ({about}) {shown(row['caption'] or '', 80)}"


_LISTED = 10


def _rest(total: int, rows: list[dict[str, Any]]) -> list[str]:
    """How many are not listed; rows of a checkpoint are grouped, so their amounts count."""
    listed = sum(row.get("amount", 1) for row in rows[:_LISTED])
    return [f"  … and {total - listed:,} more"] if total > listed else []


def _trace_tables(found: Any) -> list[Any]:
    parts: list[Any] = []
    if found.urls:
        parts.append(f"From {found.urls_total:,} rows of URLs, {found.urls_kept:,} kept")
        parts += [f"  {_url_line(row)}" for row in found.urls[:_LISTED]]
        parts += _rest(found.urls_total, found.urls)
    if found.built:
        shown = table(f"Built samples: {found.built_total:,}", "sample", "kind", "artifact", "shard", ">pictures")
        for row in found.built[:_LISTED]:
            shown.add_row(row["sample_id"], row["kind"], row["artifact"], row["shard"], str(row["images"]))
        parts += [shown, *_rest(found.built_total, found.built)]
    if found.plans:
        shown = table("Plans", "plan", ">draws", ">steps", ">first step", ">last step")
        for hit in found.plans:
            shown.add_row(
                hit.plan, f"{hit.draws:,}", f"{len(hit.steps):,} of {hit.num_steps:,}", str(hit.first), str(hit.last)
            )
        parts.append(shown)
    if found.checkpoints:
        shown = table(
            "Checkpoints that learned from it", "checkpoint", ">first step", ">last step", ">steps", "through"
        )
        for hit in found.checkpoints:
            own = ["-" if step is None else str(step) for step in (hit.first_step, hit.last_step)]
            shown.add_row(hit.checkpoint.label, *own, str(hit.num_steps), hit.inherited_from or "its own plan")
        parts.append(shown)
    if found.evaluations:
        shown = table("Evaluations of these", "checkpoint", "task", "figure", ">score")
        for result in found.evaluations:
            title = f"{result.title}{' (blind)' if result.blind else ''}"
            score = "-" if result.score is None else f"{result.score:.3f}"
            shown.add_row(f"{result.run}/{result.checkpoint}", title, result.primary, score)
        parts.append(shown)
    parts += [f"card {entry['name']}: digest {entry['digest'][:16]}" for entry in found.cards]
    if found.tombstoned:
        parts.append(f"{found.tombstoned:,} of these samples are retracted")
    if not parts:
        parts.append(f"nothing in the workspace holds {found.subject.text!r} (read as {found.subject.what})")
    return parts


def index(workspace: FoundWorkspace = DEFAULT_WORKSPACE, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Index the ledger, so that trace and retract look up what they would else read row by row.

    Indexes are derived: they may be deleted at any time, and one of an artifact made anew is not used. Run it after
    curation and building of a large corpus.

    Example: `owl3 index --workspace workspace`
    """
    from owl3.cards import index as library

    folders = [(kind, folder.name) for kind in library.INDEXED for folder in library.artifacts(workspace, kind)]
    missing = [f"{kind}/{name}" for kind, name in folders if library.current(workspace, kind, name) is None]
    if not dry_run:
        library.build_indexes(workspace, progress=TerminalProgress())
    done = "would index" if dry_run else "indexed"
    note = f"{done} {', '.join(missing)}" if missing else "every index is current"
    emit(as_json, {"artifacts": len(folders), "indexed": missing}, note)


def report(
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the pages; default WORKSPACE/report.")] = None,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    datacards: Datacards = None,
    as_json: Json = False,
) -> None:
    """Build static pages about a workspace: corpora, samples, lineage, runs, scores, cards.

    Example: `owl3 report --out report/`
    """
    from owl3.report.build import build_report

    index = build_report(
        workspace, datacards_of(workspace, datacards), out or workspace / "report", progress=TerminalProgress()
    )
    emit(as_json, {"report": index}, f"open {index}")
