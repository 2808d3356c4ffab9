"""A bad sample is counted, a stream of them stops the run, and a retracted one is left out at once."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from owl3.data.collate import Drop, MicroBatch
from owl3.data.drops import DropBudget
from owl3.data.loader import StepLoader
from owl3.errors import InputError
from owl3.ledger import TOMBSTONES, tombstones_path
from owl3.tokens import TextTokenizer
from tests.data.conftest import TILE_PX, conversation, picture, write_samples
from tests.data.test_loader import expected, ids, load, write_and_plan
from tests.data.test_plan import config, planned


def batch(seen: int, reasons: tuple[str, ...] = ()) -> MicroBatch:
    drops = tuple(Drop(0, f"{n:032x}", "photos", reason, f"00000.tar:{n}", "why") for n, reason in enumerate(reasons))
    names = tuple(str(n) for n in range(seen))
    return MicroBatch(0, (0,), {}, None, (names,), drops, np.zeros(2, np.uint64), trained_tokens=0, images=0)


def test_an_undecodable_picture_is_a_counted_drop(workspace: Path, tokenizer: TextTokenizer) -> None:
    samples = [conversation("photos", i, 1, 5) for i in range(16)]
    write_samples(workspace, tokenizer, "photos", samples, media=lambda i, k: b"no picture" if i == 3 else picture(i))
    plan = planned(workspace, config("photos", steps=2))
    steps = load(plan, workspace, tokenizer, world_size=1)
    drops = [drop for step in steps for drop in step.drops]
    assert [(drop.sample_id, drop.reason) for drop in drops] == [(samples[3].id, "not_an_image")]
    assert drops[0].where == f"samples/photos/00000.tar:{samples[3].id}"
    assert sum(step.num_samples for step in steps) + len(drops) == 16


def test_a_stream_of_bad_samples_stops_the_run(workspace: Path, tokenizer: TextTokenizer) -> None:
    samples = [conversation("photos", i, 1, 5) for i in range(104)]
    write_samples(workspace, tokenizer, "photos", samples, media=lambda i, k: b"no picture", per_shard=52)
    plan = planned(workspace, config("photos", steps=13))
    with pytest.raises(InputError, match=r"samples/photos/0000\d\.tar:[0-9a-f]{32}: not_an_image .* owl3 lint"):
        load(plan, workspace, tokenizer)


def test_a_retraction_takes_effect_in_a_running_loader(workspace: Path, tokenizer: TextTokenizer) -> None:
    plan = write_and_plan(workspace, tokenizer)
    steps = iter(StepLoader(plan.folder, workspace, tokenizer, tile_px=TILE_PX))
    next(steps)
    gone = expected(plan, workspace)[5][0]
    row = {"sample_id": gone, "matched_by": "sample_id", "matched_value": gone, "reason": "asked", "time": ""}
    pq.write_table(pa.Table.from_pylist([row], schema=TOMBSTONES), tombstones_path(workspace))
    rest = list(steps)
    assert gone not in [i for step in rest for i in ids(step)]
    assert {(d.sample_id, d.reason) for step in rest for d in step.drops} == {(gone, "tombstoned")}


def test_the_budget_names_the_last_bad_sample_even_when_a_good_batch_ends_it() -> None:
    budget = DropBudget(max_fraction=0.05)
    budget.count(batch(900, ("undecodable",) * 60))
    with pytest.raises(InputError, match=r"00000\.tar:59: undecodable .*; 60 of 1000 planned samples"):
        budget.count(batch(40))


def test_retracted_samples_use_up_no_budget() -> None:
    budget = DropBudget(max_fraction=0.05)
    for _ in range(3):
        budget.count(batch(0, ("tombstoned",) * 500))
    assert (budget.met, budget.dropped, budget.in_a_row) == (0, 0, 0)
