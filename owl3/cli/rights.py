"""`owl3 rights` and `owl3 lineage`: ask hosts again, and tell others about the chain."""

from pathlib import Path
from typing import Annotated

import typer

from owl3.cli.common import DEFAULT_WORKSPACE, FoundWorkspace, Json, TerminalProgress, emit, table
from owl3.cli.curate import parse_resolve
from owl3.errors import InputError
from owl3.secrecy import hide


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("rights")(rights)
    app.command("lineage")(lineage)


def rights(
    *,
    recheck: Annotated[bool, typer.Option("--recheck", help="Ask robots.txt and headers again.")] = False,
    per_host: Annotated[int, typer.Option("--per-host", min=0, help="URLs per host; 0 asks all.")] = 2,
    hosts: Annotated[int | None, typer.Option("--hosts", min=1, help="Ask a random part of the hosts only.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where the removal list is written.")] = None,
    resolve: Annotated[
        list[str] | None, typer.Option("--resolve", help="HOST=ADDRESS:PORT, as curl's.", envvar="OWL3_RESOLVE")
    ] = None,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Show the rights signals that were seen; with --recheck, ask again and propose what to retract.

    Example: `owl3 rights --recheck --out opt-outs.txt`
    """
    from owl3.cards.runs import as_data
    from owl3.cards.tables import views_of
    from owl3.ledger import connect

    if recheck:
        from owl3.recheck import recheck as ask_again
        from owl3.recheck import record, write_proposal

        places = parse_resolve(resolve or [])
        result = ask_again(
            workspace, per_host=per_host or None, hosts=hosts, resolve=places, progress=TerminalProgress()
        )
        path = out or workspace / "opt-outs.txt"
        write_proposal(path, result)
        record(workspace, result)
        shown = table(
            f"{len(result.opt_outs)} of {result.asked} URLs are refused now", "host", "reason", "signal", "value"
        )
        for entry in result.opt_outs[:20]:
            shown.add_row(entry.host, entry.reason, entry.signal, entry.value)
        hint = f"read {path}, then: owl3 retract --list {path} --reason 'new reservation' --yes"
        emit(as_json, as_data(result) | {"proposal": str(path)}, shown, hint)
        return
    with connect(workspace) as db:
        if "shard_rows" not in views_of(db):
            raise InputError(f"{workspace}: no shards; curate a corpus first")
        rows = db.execute(
            "select coalesce(rights_signal, 'not asked'), coalesce(rights_value, ''), decision, count(*) as amount "
            "from shard_rows group by 1, 2, 3 order by amount desc, 1, 2, 3 limit 50"
        ).fetchall()
    shown = table("Rights signals", "signal", "value", "decision", ">URLs")
    for signal, value, decision, amount in rows:
        shown.add_row(signal, value, decision, f"{amount:,}")
    emit(as_json, [dict(zip(("signal", "value", "decision", "urls"), row, strict=True)) for row in rows], shown)


def lineage(
    *,
    file: Annotated[Path | None, typer.Option("--file", help="Default: WORKSPACE/openlineage.jsonl.")] = None,
    url: Annotated[str | None, typer.Option("--url", envvar="OPENLINEAGE_URL", help="A server instead.")] = None,
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Tell OpenLineage about every finished artifact: one event each, with digests and counts.

    Example: `owl3 lineage --url http://localhost:5000`
    """
    from owl3.cards.lineage import emit as send
    from owl3.cards.lineage import finished_artifacts

    target = None if url else file or workspace / "openlineage.jsonl"
    sent = send(finished_artifacts(workspace), file=target, url=url)
    told = hide(url or str(target))
    emit(as_json, {"events": sent, "to": told}, f"{sent} events to {told}")
