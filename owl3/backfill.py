"""Curation of some sets of a recipe in partitions, for whoever shares it out: corpus x shard range x snapshot date.

A partition is fetched and judged by one task; who fetches the last leaves the look at the whole set, and the writing of
its shards, to the chain's own step.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from owl3.curate import partitions
from owl3.curate.run import curate
from owl3.manifest import Manifest
from owl3.pipeline import Place, Step, choose_steps, curate_shards, entry_named
from owl3.progress import SILENT, Progress
from owl3.recipe import Recipe


@dataclass(frozen=True)
class Backfill:
    """Which sets, as of which day, and which part of them.

    Attributes:
        only: Sets to take; all when empty.
        day: Fetch them as of this day, under names of their own; None means the sets themselves.
        shards: Fetch only these (half-open), and leave the writing to whoever fetches the last; None means all.
        renew: Make anew what another recipe or source made (stale by digest), instead of refusing.
        most: Partitions per set.
    """

    only: Collection[str] | None = None
    day: date | None = None
    shards: tuple[int, int] | None = None
    renew: bool = False
    most: int = partitions.MAX_PARTITIONS

    def of(self, recipe: Recipe) -> Recipe:
        """The part of a recipe that is curated: the chosen sets, named for their day, and their sources.

        Raises:
            ConfigError: `only` names something that the recipe does not have.
        """
        names = [step.name for step in choose_steps(recipe, ("curate",), self.only)]
        chosen = [entry for entry in recipe.curate if entry.name in names]
        wanted = {entry.source for entry in chosen}
        return recipe.model_copy(
            update={
                "sources": tuple(entry for entry in recipe.sources if entry.name in wanted),
                "curate": tuple(partitions.snapshot(entry, self.day) for entry in chosen),
            }
        )

    def cut(self, recipe: Recipe, workspace: Path) -> list[partitions.Partition]:
        """All partitions of the chosen sets, whose sources are prepared; to `renew`, stale work is thrown away."""
        if self.renew:
            for entry in recipe.curate:
                partitions.prepare_to_renew(entry, workspace)
        entries = [entry for entry in recipe.curate if not (self.renew and partitions.is_stale(entry, workspace))]
        return [
            part
            for entry in entries  # a stale set is made anew beside the old one, as a whole
            for part in partitions.cut(entry, workspace, most=self.most, only=self.shards)
        ]

    def writing(self, recipe: Recipe) -> list[Step]:
        """The look at each whole set and the writing of its shards; nothing when only some shards are fetched."""
        if self.shards is not None:
            return []
        function = renew_shards if self.renew else curate_shards
        return [Step("curate", entry.name, function) for entry in recipe.curate]


def fetch_partition(recipe: Recipe, part: partitions.Partition, place: Place) -> partitions.Fetched:
    """Fetch and judge one partition; waits for whoever holds some of its shards."""
    entry = entry_named(recipe.curate, part.set)
    return partitions.fetch_partition(entry, place.workspace, part, resolve=place.resolve)


def renew_shards(recipe: Recipe, name: str, place: Place, progress: Progress = SILENT) -> Manifest:
    """As `curate_shards`; what another recipe or source made is made anew."""
    config = entry_named(recipe.curate, name)
    return curate(config, place.workspace, resolve=place.resolve, renew=True, progress=progress)
