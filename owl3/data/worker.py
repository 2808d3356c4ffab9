"""What worker processes do: micro-batches out of rows, one per job that the trainer gives out."""

import signal
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import Dataset, Sampler

from owl3.data.collate import MicroBatch, collate, joined
from owl3.data.dataset import PlanDataset
from owl3.data.encode import U8
from owl3.data.pack import share_rows
from owl3.data.slots import Slots
from owl3.errors import Owl3Error
from owl3.malloc import keep_freed_pages
from owl3.planfile import Plan


class RowSplit:
    """Which rows of a step this rank computes, and in which micro-batches."""

    def __init__(self, plan: Plan, rank: int, world_size: int, micro_batch_rows: int) -> None:
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self.micro_batch_rows = micro_batch_rows
        self._last: tuple[int, list[int]] = (-1, [])

    def num_micro_batches(self, step: int) -> int:
        """The same on every rank: set by the rank that has most rows."""
        most_rows = -(-len(self.plan.row_tiles(step)) // self.world_size)
        return -(-most_rows // self.micro_batch_rows)

    def rows(self, step: int, number: int) -> list[int]:
        """Row numbers of micro-batch `number`; may be empty."""
        if self._last[0] != step:
            self._last = step, share_rows(self.plan.row_tiles(step), self.world_size)[self.rank]
        return self._last[1][number * self.micro_batch_rows : (number + 1) * self.micro_batch_rows]


class Job(NamedTuple):
    """One micro-batch to be made."""

    step: int
    number: int
    slot: int | None
    """Where to put its tiles; None: where torch puts them."""


class Jobs(Sampler[Job]):
    """All micro-batches from a step on, counted and never listed: starting at step ten million costs nothing."""

    def __init__(self, split: RowSplit, start_step: int, num_steps: int, slots: Slots | None) -> None:
        self.split = split
        self.start_step = start_step
        self.num_steps = num_steps
        self.slots = slots

    def __iter__(self) -> Iterator[Job]:
        for step in range(self.start_step, self.num_steps):
            for number in range(self.split.num_micro_batches(step)):
                yield Job(step, number, self.slots.take() if self.slots else None)


class MicroBatches(Dataset["MicroBatch | Owl3Error"]):
    """What a worker process makes: a micro-batch per job."""

    def __init__(self, dataset: PlanDataset, split: RowSplit, pad_id: int) -> None:
        self.dataset = dataset
        self.split = split
        self.pad_id = pad_id
        self.slots: Slots | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"slots": None}  # a worker that was not forked has no part in that memory

    def __getitem__(self, job: Job) -> "MicroBatch | Owl3Error":
        try:
            rows = [self.dataset.row(job.step, row) for row in self.split.rows(job.step, job.number)]
        except Owl3Error as error:
            return error  # crosses the process border as it is; torch would wrap it into a page of traceback
        join: Callable[[list[U8]], Any] = joined
        if self.slots is not None and job.slot is not None:
            join = partial(self.slots.put, job.slot)
        batch = collate(rows, self.pad_id, join)
        batch.step = job.step
        return batch


def start_worker(_number: int) -> None:
    """Make a process fit for the work, before its first job."""
    # A signal to a whole group (a scheduler's, Ctrl-C) must not end workers: the step on the way is still finished.
    # They end with the trainer, which they watch.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    keep_freed_pages()


def as_it_is(batch: Any) -> Any:
    """Keep torch from converting a micro-batch."""
    return batch
