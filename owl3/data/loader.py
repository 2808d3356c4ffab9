"""Follow a plan: the steps of one rank, their rows encoded in worker processes, the same at any world size.

Nothing is replayed and nothing is remembered: a step number, the plan and (rank, world size) say what to read. Every
planned sample ends as seen, or dropped with its reason; the fingerprints of what was met add up to the plan's.
"""

import atexit
import weakref
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader

from owl3.data.collate import Drop, MicroBatch
from owl3.data.dataset import PlanDataset
from owl3.data.drops import DropBudget
from owl3.data.encode import Decoder
from owl3.data.slots import Slots
from owl3.data.worker import Jobs, MicroBatches, RowSplit, as_it_is, start_worker
from owl3.errors import ConfigError, Owl3Error
from owl3.idhash import U64
from owl3.planfile import Plan
from owl3.tokens import TextTokenizer

_OPEN: weakref.WeakSet[Iterator["Step"]] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Let go of what is still open, so that its workers end: they ignore the signal that would end them at exit."""
    for steps in list(_OPEN):
        if isinstance(steps, Generator):
            steps.close()


@dataclass
class Step:
    """What one rank computes in one optimizer step."""

    index: int
    trained_tokens: int
    """Of the whole step, over all ranks, as planned: what the loss is divided by."""
    micro_batches: list[MicroBatch]
    """At least one, and as many on every rank."""

    @property
    def drops(self) -> list[Drop]:
        """Samples of this rank that were left out."""
        return [drop for batch in self.micro_batches for drop in batch.drops]

    @property
    def fingerprint(self) -> U64:
        """This rank's share of the proof: added up over ranks (modulo 2^64) it must equal the plan's."""
        total: U64 = np.sum([batch.fingerprint for batch in self.micro_batches], axis=0, dtype=np.uint64)
        return total

    @property
    def num_samples(self) -> int:
        """Samples of this rank that are seen."""
        return sum(len(ids) for batch in self.micro_batches for ids in batch.sample_ids)


class StepLoader:
    """Iterate over the steps of one rank, from `start_step` to the plan's end.

    Args:
        plan_dir: plans/NAME/STAGE.
        tile_px: Side of a picture tile: the image size of the vision model.
        rank, world_size: Data-parallel ones; they decide only which rows of a step this process computes.
        micro_batch_rows: Rows per forward pass.
        start_step: The whole state: resume here, at any world size.
        num_workers: Worker processes; 0 encodes in this one. Changes no batch.
        prefetch: Micro-batches that each of them makes ahead, at the least; together they make a whole step ahead.
        decoder: `pillow` gives the released processor's pixels; `opencv` is twice as fast, values differ by 1 or 2.
        tars_url: Read tars from there instead of the workspace: a workspace's URL that fsspec understands.
        max_drop_fraction: Stop when more of the planned samples than this have been dropped (after 1,000 of them).

    Raises:
        ConfigError: rank, world size or start step make no sense; another tokenizer than the samples'.
        StaleError: the samples are not those of the plan.
    """

    def __init__(
        self,
        plan_dir: Path,
        workspace: Path,
        tokenizer: TextTokenizer,
        *,
        tile_px: int,
        rank: int = 0,
        world_size: int = 1,
        micro_batch_rows: int = 1,
        start_step: int = 0,
        num_workers: int = 0,
        prefetch: int = 2,
        pin_memory: bool = False,
        decoder: Decoder = "pillow",
        tars_url: str | None = None,
        max_drop_fraction: float = 0.05,
    ) -> None:
        self.plan = Plan.open(plan_dir)
        if not 0 <= rank < world_size:
            raise ConfigError(f"rank {rank} is not one of {world_size} ranks")
        if not 0 <= start_step <= self.plan.num_steps:
            raise ConfigError(f"{plan_dir}: has {self.plan.num_steps} steps, can't start at step {start_step}")
        self.plan.check_parents(workspace)
        self.start_step = start_step
        dataset = PlanDataset(self.plan, workspace, tokenizer, tile_px=tile_px, decoder=decoder, tars_url=tars_url)
        self._split = RowSplit(self.plan, rank, world_size, micro_batch_rows)
        self._budget = DropBudget(max_drop_fraction)
        self._micro_batches = MicroBatches(dataset, self._split, tokenizer.end_of_text_id)
        self._num_workers = num_workers
        self._prefetch = max(prefetch, -(-self._step_size() // num_workers)) if num_workers else None
        self._pin_memory = pin_memory

    def __len__(self) -> int:
        return self.plan.num_steps - self.start_step

    def _step_size(self) -> int:
        """Micro-batches of the first step: a step is taken at once, so less than it ahead would be waited for."""
        return self._split.num_micro_batches(self.start_step) if len(self) else 1

    def __iter__(self) -> Iterator[Step]:
        steps = self._steps()
        _OPEN.add(steps)
        return steps

    def _batches(self) -> "DataLoader[MicroBatch | Owl3Error]":
        slots = self._slots() if self._num_workers else None
        self._micro_batches.slots = slots
        return DataLoader(
            self._micro_batches,
            sampler=Jobs(self._split, self.start_step, self.plan.num_steps, slots),
            batch_size=None,
            num_workers=self._num_workers,
            prefetch_factor=self._prefetch,
            pin_memory=self._pin_memory,
            collate_fn=as_it_is,
            worker_init_fn=start_worker,
        )

    def _slots(self) -> Slots:
        """Room for all micro-batches on the way, and for the two steps that the trainer holds at a time."""
        ahead = self._num_workers * (self._prefetch or 0)
        figures = self.plan.header.figures
        most_tiles = min(self._split.micro_batch_rows * figures["fullest_row_tiles"], figures["tiles_per_step"]["max"])
        tile_bytes = 3 * self._micro_batches.dataset.encoder.tile_px**2
        return Slots(ahead + 2 * self._step_size() + 1, most_tiles * tile_bytes)

    def _steps(self) -> Iterator[Step]:
        batches = iter(self._batches())
        for index in range(self.start_step, self.plan.num_steps):
            micro_batches = []
            for _ in range(self._split.num_micro_batches(index)):
                batch = next(batches)
                if isinstance(batch, Owl3Error):
                    raise batch
                self._budget.count(batch)
                micro_batches.append(batch)
            yield Step(index, self.plan.trained_tokens(index), micro_batches)
