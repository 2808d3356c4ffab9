"""Follow a plan: the rows of each step, read at random, encoded in worker processes, the same at any world size.

    PlanDataset      one row of the plan by its number; map-style, so any torch sampler can drive it
    StepLoader       the steps of one rank, from any step on; its whole state is the number of the next step

Nothing is replayed and nothing is remembered: a step number, the plan and (rank, world size) say what to read. Every
planned sample ends as seen, or dropped with its reason; the fingerprints of what was met add up to the plan's.
"""

import atexit
import logging
import signal
import time
import weakref
from bisect import bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from torch.utils.data import DataLoader, Dataset, Sampler

from owl3.data.collate import Drop, MicroBatch, Row, collate
from owl3.data.costs import is_cut
from owl3.data.encode import Decoder, EncodedSample, Encoder
from owl3.data.pack import share_rows
from owl3.data.ranges import RemoteTars
from owl3.data.reading import SampleReader, StoredSample
from owl3.errors import ConfigError, InputError, Owl3Error
from owl3.idhash import U64, fingerprints
from owl3.ledger import check_reason, tombstones_path
from owl3.media import MediaError
from owl3.planfile import Plan
from owl3.tokens import TextTokenizer

log = logging.getLogger(__name__)


_OPEN: weakref.WeakSet[Iterator["Step"]] = weakref.WeakSet()


@atexit.register
def _end_workers() -> None:
    """Let go of what is still open, so that its workers end: they ignore the signal that would end them at exit."""
    for steps in list(_OPEN):
        if isinstance(steps, Generator):
            steps.close()


class PlanDataset(Dataset[Row]):
    """The rows of a plan by number; opens files lazily, so it can be sent to workers."""

    def __init__(
        self,
        plan: Plan,
        workspace: Path,
        tokenizer: TextTokenizer,
        *,
        tile_px: int,
        decoder: Decoder = "pillow",
        tars_url: str | None = None,
    ) -> None:
        if tokenizer.digest != plan.header.tokenizer_digest:
            raise ConfigError(
                f"{plan.folder}: was planned with the tokenizer {plan.header.tokenizer_digest[:12]}, "
                f"this one is {tokenizer.digest[:12]}; use the tokenizer that the samples were built with"
            )
        if plan.header.tile_px not in (0, tile_px):
            raise ConfigError(
                f"{plan.folder}: cut pictures were costed for tiles of {plan.header.tile_px} px, the model's are "
                f"{tile_px} px; build the samples with tile_px: {tile_px}"
            )
        self.plan = plan
        self.workspace = workspace
        self.tars_url = tars_url
        self.encoder = Encoder(
            tokenizer,
            release=plan.header.release,  # type: ignore[arg-type]  # checked by the template on first use
            style="plain" if plan.header.prompt_style == "plain" else "chat",
            tile_px=tile_px,
            decoder=decoder,
        )
        self._reader: SampleReader | None = None
        self._tombstones = _Tombstones(tombstones_path(workspace))

    def __len__(self) -> int:
        return len(self.plan.row_costs)

    def __getitem__(self, number: int) -> Row:
        """Encode row `number` of the whole plan."""
        if not 0 <= number < len(self):
            raise IndexError(f"{self.plan.folder}: has rows 0 to {len(self) - 1}, there is no row {number}")
        step = bisect_right(self.plan.steps, number, key=lambda entry: int(entry["first_row"])) - 1
        return self.row(step, number - int(self.plan.steps[step]["first_row"]))

    def row(self, step: int, number: int) -> Row:
        """Encode row `number` of a step.

        Raises:
            InputError: a shard is missing, damaged, or not the one that was planned.
        """
        started = time.perf_counter()
        row = Row(step, number, samples=[])
        met = 0
        countable = True
        positions = self.plan.positions(step)
        slots = self.plan.rows(step)[number]
        words: list[tuple[int, int]] = []
        for slot in slots.tolist():
            encoded, tokens = self._sample(row, int(positions[slot]), words)
            met += tokens or 0
            countable &= tokens is not None
            if encoded is not None:
                row.samples.append(encoded)
        if countable and met != int(self.plan.row_tokens(step)[number]):
            self._explain_cost(step, number)
        row.fingerprint = fingerprints(np.array(words, dtype=np.uint64), slots).sum(axis=0, dtype=np.uint64)
        row.seconds = time.perf_counter() - started
        return row

    def _sample(self, row: Row, position: int, words: list[tuple[int, int]]) -> tuple[EncodedSample | None, int | None]:
        """Encode one sample into a row; return it, and its number of tokens where that can be known. Its id's two words
        are added to those that have been met."""
        if self._reader is None:
            tars = RemoteTars(self.tars_url) if self.tars_url else None
            self._reader = SampleReader(self.plan, self.workspace, tars)
        stored = self._reader.read(position)
        sample_id = stored.sample.id
        words.append((int(sample_id[:16], 16), int(sample_id[16:], 16)))
        dataset = self.plan.header.datasets[self.plan.dataset_of(position)]
        cut = self._is_cut(position, stored, dataset.cut)
        if sample_id in self._tombstones:
            row.drops.append(Drop(row.step, sample_id, dataset.name, "tombstoned", stored.where, "retracted"))
            return None, None
        try:
            encoded = self.encoder.encode(stored, cut)
        except MediaError as error:
            reason = check_reason(error.reason)
            row.drops.append(Drop(row.step, sample_id, dataset.name, reason, stored.where, str(error)))
            return None, None if cut else self.encoder.text_tokens(stored)
        return encoded, len(encoded.input_ids)

    def _is_cut(self, position: int, stored: StoredSample, share: float) -> bool:
        if not share or self.plan.part_of(position) is not None:
            return False
        if any(segment.frame is not None for segment in stored.sample.segments):
            return False
        words = np.array([[int(stored.sample.id[:16], 16), int(stored.sample.id[16:], 16)]], dtype=np.uint64)
        return bool(is_cut(words, np.array([stored.sample.num_media]), self.plan.header.seed, share)[0])

    def _explain_cost(self, step: int, number: int) -> None:
        """Name the sample whose cost is not the planned one.

        Raises:
            InputError: always, unless the row's samples all cost what their index says (then the plan is wrong).
        """
        style = "plain_tokens" if self.plan.header.prompt_style == "plain" else "text_tokens"
        positions = self.plan.positions(step)[self.plan.rows(step)[number]].tolist()
        index = self.plan.sample_rows(self.workspace, positions, [style, "cut_tokens"])
        assert self._reader is not None
        for position, costs in zip(positions, index, strict=True):
            stored = self._reader.read(position)
            dataset = self.plan.header.datasets[self.plan.dataset_of(position)]
            cut = self._is_cut(position, stored, dataset.cut)
            part = self.plan.part_of(position)
            planned = costs["cut_tokens" if cut else style] if part is None else int(part["tokens"])
            tokens = len(self.encoder.encode(stored, cut).input_ids) if cut else self.encoder.text_tokens(stored)
            if tokens != planned:
                raise InputError(
                    f"{stored.where}: has {tokens} text tokens, its index says {planned}; "
                    "its samples were costed with another template or tile size: build them again and plan anew"
                )
        raise AssertionError(f"step {step} row {number}: planned tokens differ from its samples' costs")


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
        decoder: `pillow` gives the released processor's pixels; `opencv` is faster and a little different.
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
        self._split = _RowSplit(self.plan, rank, world_size, micro_batch_rows)
        self._budget = _DropBudget(max_drop_fraction)
        self._batches = DataLoader(
            _MicroBatches(dataset, self._split, tokenizer.end_of_text_id),
            sampler=_StepOrder(self._split, start_step, self.plan.num_steps),
            batch_size=None,
            num_workers=num_workers,
            prefetch_factor=max(prefetch, -(-self._step_size() // num_workers)) if num_workers else None,
            pin_memory=pin_memory,
            collate_fn=_as_it_is,
            worker_init_fn=_leave_signals_to_the_trainer,
        )

    def __len__(self) -> int:
        return self.plan.num_steps - self.start_step

    def _step_size(self) -> int:
        """Micro-batches of the first step: a step is taken at once, so less than it ahead would be waited for."""
        return self._split.num_micro_batches(self.start_step) if len(self) else 1

    def __iter__(self) -> Iterator[Step]:
        steps = self._steps()
        _OPEN.add(steps)
        return steps

    def _steps(self) -> Iterator[Step]:
        batches = iter(self._batches)
        for index in range(self.start_step, self.plan.num_steps):
            micro_batches = []
            for _ in range(self._split.num_micro_batches(index)):
                batch = next(batches)
                if isinstance(batch, Owl3Error):
                    raise batch
                self._budget.count(batch)
                micro_batches.append(batch)
            yield Step(index, self.plan.trained_tokens(index), micro_batches)


class _RowSplit:
    """Which rows of a step this rank computes, and in which micro-batches."""

    def __init__(self, plan: Plan, rank: int, world_size: int, micro_batch_rows: int) -> None:
        self.plan = plan
        self.rank = rank
        self.world_size = world_size
        self.micro_batch_rows = micro_batch_rows

    def num_micro_batches(self, step: int) -> int:
        """The same on every rank: set by the rank that has most rows."""
        most_rows = -(-len(self.plan.row_tiles(step)) // self.world_size)
        return -(-most_rows // self.micro_batch_rows)

    def rows(self, step: int, number: int) -> list[int]:
        """Row numbers of micro-batch `number`; may be empty."""
        mine = share_rows(self.plan.row_tiles(step), self.world_size)[self.rank]
        return mine[number * self.micro_batch_rows : (number + 1) * self.micro_batch_rows]


class _StepOrder(Sampler[tuple[int, int]]):
    """(step, micro-batch) pairs, counted and never listed: starting at step ten million costs nothing."""

    def __init__(self, split: _RowSplit, start_step: int, num_steps: int) -> None:
        self.split = split
        self.start_step = start_step
        self.num_steps = num_steps

    def __iter__(self) -> Iterator[tuple[int, int]]:
        for step in range(self.start_step, self.num_steps):
            for number in range(self.split.num_micro_batches(step)):
                yield step, number


class _MicroBatches(Dataset["MicroBatch | Owl3Error"]):
    """Micro-batches by (step, number): what a worker process makes."""

    def __init__(self, dataset: PlanDataset, split: _RowSplit, pad_id: int) -> None:
        self.dataset = dataset
        self.split = split
        self.pad_id = pad_id

    def __getitem__(self, place: tuple[int, int]) -> "MicroBatch | Owl3Error":
        step, number = place
        try:
            rows = [self.dataset.row(step, row) for row in self.split.rows(step, number)]
        except Owl3Error as error:
            return error  # crosses the process border as it is; torch would wrap it into a page of traceback
        batch = collate(rows, self.pad_id)
        batch.step = step
        return batch


class _Tombstones:
    """Retracted ids; read again when the file changes, so a retraction takes effect in a running training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._ids: frozenset[str] = frozenset()

    def __contains__(self, sample_id: str) -> bool:
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return False
        stamp = (stat.st_mtime_ns, stat.st_size)
        if stamp != self._stamp:
            ids = pq.read_table(self.path, columns=["sample_id"])["sample_id"].to_pylist()
            self._stamp, self._ids = stamp, frozenset(ids)
        return sample_id in self._ids


class _DropBudget:
    """Turns a stream of bad samples into an error that names the last one."""

    CONSECUTIVE = 100
    BEFORE_JUDGING = 1000

    def __init__(self, max_fraction: float) -> None:
        self.max_fraction = max_fraction
        self.met = self.dropped = self.in_a_row = 0

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
        too_many = self.met >= self.BEFORE_JUDGING and self.dropped > self.max_fraction * self.met
        if too_many or self.in_a_row >= self.CONSECUTIVE:
            last = bad[-1]
            raise InputError(
                f"{last.where}: {last.reason} ({last.message}); {self.dropped} of {self.met} planned samples could not "
                "be loaded: look at this shard with owl3 lint, or raise max_drop_fraction"
            )


def _leave_signals_to_the_trainer(_number: int) -> None:
    """A signal to a whole group (a scheduler's, Ctrl-C) must not end workers: the step on the way is still finished.

    They end with the trainer, which they watch.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _as_it_is(batch: Any) -> Any:
    """Keep torch from converting a micro-batch."""
    return batch
