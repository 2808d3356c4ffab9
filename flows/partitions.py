"""Partitions of a corpus as task runs: few, however many shards there are, and told about while they run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from prefect import task
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE

from flows.steps import RETRY_AFTER_S, is_transient
from owl3.backfill import Backfill, fetch_partition
from owl3.cards.pictures import data_uri
from owl3.curate.partitions import Fetched, Partition
from owl3.pipeline import Place
from owl3.recipe import Recipe
from owl3.report.sheet import contact_sheet
from owl3.secrecy import silenced
from owl3.stopping import stopped_together


@task(
    name="fetch",
    task_run_name="fetch {part.label}",
    tags=["curate"],
    retries=len(RETRY_AFTER_S),
    retry_delay_seconds=RETRY_AFTER_S,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def fetch(part: Partition, recipe: Recipe, place: Place) -> Fetched:
    """Fetch and judge one partition; what was fetched before is not fetched again."""
    with silenced():
        return fetch_partition(recipe, part, place)


def fetch_all(wanted: Backfill, recipe: Recipe, place: Place) -> list[Fetched]:
    """Fetch every partition that is missing, several at once; shows a bar and, at its end, a table."""
    parts = wanted.cut(recipe, place.workspace)
    with stopped_together():  # partitions are fetched in threads, which outlive a cancelled run as long as they like
        runs = [fetch.submit(part, recipe, place) for part in parts]
        advance = _Bar(len(runs))
        fetched = [advance(run.result()) for run in runs]
    publish_fetched(fetched)
    return fetched


class _Bar:
    """A progress artifact that moves when a partition is there."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._artifact = create_progress_artifact(
            progress=0.0 if total else 100.0, key="fetch-progress", description=f"{total} partitions"
        )

    def __call__(self, fetched: Fetched) -> Fetched:
        self._done += 1
        update_progress_artifact(self._artifact, progress=100.0 * self._done / self._total)  # type: ignore[arg-type]
        return fetched


def publish_fetched(fetched: Sequence[Fetched]) -> None:
    """What each partition gave: yield, drops by cause, rows a second, bytes."""
    lines = [
        "| partition | rows | kept so far | yield | dropped | rows/s | MB | before |",
        "| --- | ---: | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    for entry in fetched:
        counts = entry.counts
        worst = sorted(counts.dropped.items(), key=lambda pair: -pair[1])
        dropped = ", ".join(f"{reason} {count}" for reason, count in worst)
        share = f"{counts.kept / counts.seen:.1%}" if counts.seen else ""
        rate = "" if entry.was_done else f"{counts.seen / max(entry.seconds, 0.1):,.1f}"
        done = "done before" if entry.was_done else ""
        lines.append(
            f"| {entry.partition.label} | {counts.seen} | {counts.kept} | {share} | {dropped} | {rate} "
            f"| {entry.stored_bytes / 1e6:,.1f} | {done} |"
        )
    create_markdown_artifact("\n".join(lines), key="partitions", description="What each partition gave")


def publish_sheets(recipe: Recipe, workspace: Path) -> None:
    """Show a sheet of kept pictures of every set that is finished, as an image that needs no server."""
    for entry in recipe.curate:
        finished = (workspace / "shards" / entry.name / "manifest.json").is_file()
        sheet = contact_sheet(workspace, entry.name) if finished else None
        if sheet is not None:
            key = "sheet-" + "".join(c if c.isalnum() else "-" for c in entry.name.lower())
            create_image_artifact(data_uri(sheet), key=key, description=f"Some pictures that {entry.name} kept")
