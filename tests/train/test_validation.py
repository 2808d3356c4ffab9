"""Validation: a mean over what was really measured, which tells how it gets on."""

import math
from collections.abc import Sequence

import pytest

from owl3.train.steps import Row
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


def test_a_sample_that_was_left_out_does_not_make_the_loss_smaller() -> None:
    engine, _ = toy_engine(toy_stage(), alone())
    left_out = ToyOrder().step(100)
    whole, part = ToyOrder().step(100), ToyOrder().step(100)
    left_out.micro_batches[0].inputs["labels"][4:] = float("nan")
    part.micro_batches[0].inputs = {name: tensor[:4] for name, tensor in part.micro_batches[0].inputs.items()}
    losses = [
        validation_losses(engine, alone(), {"toy": lambda step=step: iter([step])})["validation_loss"]  # type: ignore[misc]
        for step in (whole, left_out, part)
    ]
    assert losses[1] == pytest.approx(losses[2], rel=1e-6)
    assert losses[1] != pytest.approx(losses[0], rel=1e-2)
    left_out.micro_batches[0].inputs["labels"][:] = float("nan")
    assert math.isnan(validation_losses(engine, alone(), {"toy": lambda: iter([left_out])})["validation_loss"])
