"""Planned samples that are left out while loading: those that were retracted, and how many bad ones are too many."""

from pathlib import Path

import pyarrow.parquet as pq

from owl3.data.collate import Drop, MicroBatch
from owl3.errors import InputError


class Tombstones:
    """Retracted ids; read again when the file changes, so a retraction takes effect in a running training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._ids: frozenset[str] = frozenset()

    def now(self) -> frozenset[str]:
        """The ids that are retracted by now; one look at the file, so ask once per row."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return frozenset()
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            ids = pq.read_table(self.path, columns=["sample_id"])["sample_id"].to_pylist()
            self._stamp, self._ids = stamp, frozenset(ids)
        return self._ids


class DropBudget:
    """Turns a stream of bad samples into an error that names the last one."""

    CONSECUTIVE = 100
    BEFORE_JUDGING = 1000

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.met = self.dropped = self.in_a_row = 0
        self._last: Drop | None = None

    def count(self, batch: MicroBatch) -> None:
        """Account for a micro-batch.

        Raises:
            InputError: the budget is used up.
        """
        seen = sum(len(ids) for ids in batch.sample_ids)
        bad = [drop for drop in batch.drops if drop.reason != "tombstoned"]
        self.met += seen + len(bad)
        self.dropped += len(bad)
        self.in_a_row = 0 if seen else self.in_a_row + len(bad)
        self._last = bad[-1] if bad else self._last
        too_many = self.met >= self.BEFORE_JUDGING and self.dropped > self.max_fraction * self.met
        if too_many or self.in_a_row >= self.CONSECUTIVE:
            last = self._last  # the batch with which judging begins may hold no bad sample of its own
            assert last is not None
            raise InputError(
                f"{last.where}: {last.reason} ({last.message}); {self.dropped} of {self.met} planned samples could not "
                "be loaded: look at this shard with owl3 lint, or raise max_drop_fraction"
            )
