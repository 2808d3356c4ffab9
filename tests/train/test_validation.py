"""Validation tells how it gets on: one that takes longer than the deadline is no stall."""

from collections.abc import Sequence

from owl3.train.loop import Row
from owl3.train.validation import validation_losses
from train.toy import ToyOrder, alone, toy_engine, toy_stage


def test_every_micro_batch_of_held_out_samples_is_told_before_it_is_computed() -> None:
    order = ToyOrder(micro_batches=2)
    engine, _ = toy_engine(toy_stage(), alone())
    told: list[Sequence[Row]] = []
    held_out = {name: lambda: iter([order.step(100)]) for name in ("one", "other")}
    measured = validation_losses(engine, alone(), held_out, told.append)
    assert measured["validation"].keys() == {"one", "other"}
    assert measured["validation"]["one"] == measured["validation_loss"] > 0
    samples = [[sample for _, ids in rows for sample in ids] for rows in told]
    halves = [[f"sample-100-{row}" for row in range(first, 8, 2)] for first in (0, 1)]
    assert samples == [[], *halves, [], *halves]
