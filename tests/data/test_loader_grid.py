"""Every number of ranks, workers and accumulation steps gives the plan's global batches; so does a kill at any step.

A worker process is a copy of the data set that gets every n-th micro-batch, as torch's DataLoader deals them out. Here
the copies live in this process, so that the whole grid is cheap; real processes stand in `test_loader.py`.
"""

import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from owl3.data.collate import MicroBatch
from owl3.data.loader import Step, StepLoader
from owl3.planfile import Plan
from owl3.tokens import TextTokenizer
from tests.data.conftest import TILE_PX
from tests.data.test_loader import expected, ids, write_and_plan

WORLD_SIZES = (1, 2, 3, 4, 8)
WORKERS = (0, 1, 3)
ACCUMULATION = (1, 2, 4)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory, tokenizer: TextTokenizer) -> Plan:
    return write_and_plan(tmp_path_factory.mktemp("workspace"), tokenizer)


def dealt_out(batches: "DataLoader[Any]", workers: int) -> Iterator[MicroBatch]:
    """What torch's DataLoader gives: micro-batch n comes from worker n modulo their number."""
    copies = [pickle.loads(pickle.dumps(batches.dataset)) for _ in range(workers)]
    for number, job in enumerate(batches.sampler):
        yield copies[number % workers][job]


def rank_steps(
    plan: Plan,
    tokenizer: TextTokenizer,
    rank: int,
    world_size: int,
    workers: int,
    accumulation: int,
    start: int = 0,
    stop: int | None = None,
) -> list[Step]:
    """The steps of one rank, killed before `stop`, with so many copies of the data set and micro-batches per step."""
    most_rows = max(len(plan.rows(step)) for step in range(plan.num_steps))
    loader = StepLoader(
        plan.folder,
        plan.folder.parents[2],
        tokenizer,
        tile_px=TILE_PX,
        rank=rank,
        world_size=world_size,
        micro_batch_rows=max(1, -(-most_rows // (world_size * accumulation))),
        start_step=start,
    )
    if workers:
        batches = loader._batches()
        loader._batches = lambda: dealt_out(batches, workers)  # type: ignore[assignment, method-assign, return-value]
    return list(islice(loader, None if stop is None else stop - start))


def batches_of(
    plan: Plan, tokenizer: TextTokenizer, world_size: int, workers: int, accumulation: int, **between: int
) -> list[list[str]]:
    """Sorted sample ids of each step over all ranks; checks that ranks stay in step and prove what they saw."""
    ranks = [rank_steps(plan, tokenizer, r, world_size, workers, accumulation, **between) for r in range(world_size)]
    merged = []
    for steps in zip(*ranks, strict=True):
        assert len({len(step.micro_batches) for step in steps}) == 1
        assert len(steps[0].micro_batches) <= accumulation
        proof = np.sum([step.fingerprint for step in steps], axis=0, dtype=np.uint64)
        assert proof.tolist() == plan.steps[steps[0].index]["fingerprint"].tolist()
        merged.append(sorted(sample_id for step in steps for sample_id in ids(step)))
    return merged


@pytest.mark.parametrize("world_size", WORLD_SIZES)
@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("accumulation", ACCUMULATION)
def test_the_whole_grid_gives_the_same_global_batches(
    fixed: Plan, tokenizer: TextTokenizer, world_size: int, workers: int, accumulation: int
) -> None:
    found = batches_of(fixed, tokenizer, world_size, workers, accumulation)
    assert found == expected(fixed, fixed.folder.parents[2])


@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_a_kill_at_any_step_leaves_the_same_remaining_samples(
    fixed: Plan, tokenizer: TextTokenizer, data: st.DataObject
) -> None:
    step = data.draw(st.integers(0, fixed.num_steps), label="killed after")
    shape = st.tuples(st.sampled_from(WORLD_SIZES), st.sampled_from(WORKERS), st.sampled_from(ACCUMULATION))
    before, after = data.draw(shape, label="before"), data.draw(shape, label="after")
    seen = batches_of(fixed, tokenizer, *before, stop=step)
    rest = batches_of(fixed, tokenizer, *after, start=step)
    assert seen + rest == expected(fixed, fixed.folder.parents[2])


@pytest.mark.processes
def test_real_workers_of_several_ranks_do_as_their_copies_do(fixed: Plan, tokenizer: TextTokenizer) -> None:
    workspace: Path = fixed.folder.parents[2]
    for rank in range(2):
        copies = rank_steps(fixed, tokenizer, rank, 2, 3, 2, start=5)
        rows = copies[0].micro_batches
        assert rows
        loader = StepLoader(
            fixed.folder,
            workspace,
            tokenizer,
            tile_px=TILE_PX,
            rank=rank,
            world_size=2,
            micro_batch_rows=max(1, -(-max(len(fixed.rows(s)) for s in range(fixed.num_steps)) // 4)),
            start_step=5,
            num_workers=3,
        )
        for one, two in zip(loader, copies, strict=True):
            assert [batch.sample_ids for batch in one.micro_batches] == [b.sample_ids for b in two.micro_batches]
            assert one.fingerprint.tolist() == two.fingerprint.tolist()
