"""Ask the hosts again: may what was kept still be used?

Rights are reserved after the fact. A recheck asks robots.txt and the pictures' headers of some URLs per host again,
with the same user agent and rules as the fetch did; where one refuses now, all kept URLs of that host are asked. What
refuses becomes a removal list for `owl3 retract --list`: a proposal, for a person decides.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from owl3.config import canonical_json, validate
from owl3.curate.download import Downloader
from owl3.curate.limits import DownloadConfig
from owl3.curate.spool import Outcome, Spool
from owl3.curate.table import STAGE_OF_REASON
from owl3.errors import InputError
from owl3.ledger import connect
from owl3.manifest import now, read_manifest
from owl3.progress import SILENT, Progress
from owl3.storage import write_atomic

PER_HOST = 2

RECHECKS = "rechecks.jsonl"
"""One line per recheck of a workspace: when, how many were asked, how many are gone, by reason."""


@dataclass(frozen=True, slots=True)
class OptOut:
    """A kept URL whose host refuses now."""

    url: str
    host: str
    reason: str
    signal: str
    value: str


@dataclass(frozen=True)
class Recheck:
    """What the hosts say today.

    Attributes:
        asked: URLs that were asked.
        gone: URLs that do not answer any more, by reason; being gone is no reservation.
    """

    hosts: int
    asked: int
    opt_outs: tuple[OptOut, ...]
    gone: dict[str, int]


def recheck(
    workspace: Path,
    *,
    per_host: int | None = PER_HOST,
    hosts: int | None = None,
    resolve: Mapping[str, str] | None = None,
    config: DownloadConfig | None = None,
    progress: Progress = SILENT,
) -> Recheck:
    """Ask `per_host` kept URLs of every host (None: all), and all of a host that refuses one.

    Args:
        hosts: Ask a random part of the hosts only, another one each time.
        config: How to ask; by default as the first shards artifact was fetched.

    Raises:
        InputError: the workspace has no shards.
    """
    urls = _kept_urls(workspace)
    if hosts is not None and hosts < len(urls):
        urls = {host: urls[host] for host in sorted(random.sample(sorted(urls), hosts))}
    config = config or fetch_config(workspace)
    first = {host: found if per_host is None else found[:per_host] for host, found in urls.items()}
    progress.start("ask hosts again", total=sum(map(len, first.values())))
    outcomes = asyncio.run(_ask(config, first, resolve, progress))
    refusing = {host for host, found in first.items() if any(_is_refusal(outcomes[url]) for url in found)}
    rest = {host: [url for url in urls[host] if url not in outcomes] for host in sorted(refusing)}
    if any(rest.values()):
        outcomes |= asyncio.run(_ask(config, rest, resolve, progress))
    host_of = {url: host for host, found in urls.items() for url in found}
    opt_outs = [
        OptOut(url, host_of[url], str(outcome.reason), outcome.rights_signal, outcome.rights_value)
        for url, outcome in sorted(outcomes.items())
        if _is_refusal(outcome)
    ]
    gone: dict[str, int] = {}
    for outcome in outcomes.values():
        if outcome.reason and not _is_refusal(outcome):
            gone[outcome.reason] = gone.get(outcome.reason, 0) + 1
    progress.finish(f"{len(opt_outs)} of {len(outcomes)} URLs are refused now")
    return Recheck(len(urls), len(outcomes), tuple(opt_outs), dict(sorted(gone.items())))


def fetch_config(workspace: Path) -> DownloadConfig:
    """How the first shards artifact of the workspace was fetched.

    Raises:
        InputError: there is none.
    """
    for path in sorted(workspace.glob("shards/*/manifest.json")):
        fetch = read_manifest(path.parent).recipe.get("fetch")
        if fetch is not None:
            return validate(fetch, DownloadConfig, f"{path}: recipe.fetch")
    raise InputError(f"{workspace}: no shards that were fetched; nothing to ask about")


def _kept_urls(workspace: Path) -> dict[str, list[str]]:
    """Kept URLs by host, in an order that depends on their ids alone."""
    with connect(workspace) as db:
        views = {row[0] for row in db.execute("select view_name from duckdb_views() where not internal").fetchall()}
        if "shard_rows" not in views:
            raise InputError(f"{workspace}: no shards; curate a corpus first")
        rows = db.execute(
            "select domain, url from shard_rows where decision = 'kept' and domain is not null "
            "group by domain, url order by domain, md5(url)"
        ).fetchall()
    found: dict[str, list[str]] = {}
    for host, url in rows:
        found.setdefault(str(host), []).append(str(url))
    return found


def _is_refusal(outcome: Outcome) -> bool:
    return outcome.reason is not None and STAGE_OF_REASON.get(outcome.reason) == "rights"


async def _ask(
    config: DownloadConfig, urls: Mapping[str, Sequence[str]], resolve: Mapping[str, str] | None, progress: Progress
) -> dict[str, Outcome]:
    """Ask hosts beside each other, and each host's URLs one after another."""
    found: dict[str, Outcome] = {}
    with tempfile.TemporaryDirectory(prefix="owl3-recheck-") as folder, Spool(Path(folder)) as spool:
        async with Downloader(config, resolve=resolve) as downloader:

            async def ask(host: str) -> None:
                for url in urls[host]:
                    found[url] = await downloader.fetch(url, spool)
                    progress.advance()

            await asyncio.gather(*(ask(host) for host in urls))
    return found


def record(workspace: Path, result: Recheck) -> None:
    """Add what the hosts said today to the workspace's history of rechecks, which the report draws."""
    entry = {"time": now(), "hosts": result.hosts, "asked": result.asked, "opt_outs": len(result.opt_outs)}
    with FileLock(workspace / f".{RECHECKS}.lock"), (workspace / RECHECKS).open("ab") as handle:
        handle.write(canonical_json(entry | {"gone": result.gone}) + b"\n")


def write_proposal(path: Path, result: Recheck) -> None:
    """Write the removal list: one URL per line with the signal behind it, for `owl3 retract --list`."""
    lines = [f"{entry.url} # {entry.reason}: {entry.signal} {entry.value}".rstrip() for entry in result.opt_outs]
    head = "# New reservations of rights, found by owl3 rights --recheck. Read it, then: owl3 retract --list FILE --yes"
    write_atomic(path, "\n".join([head, *lines, ""]).encode())
