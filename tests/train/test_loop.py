"""The training loop: what it learns, what stops it, what it leaves behind."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from owl3.errors import CheckFailed, Interrupted
from owl3.train.checkpoint import TrainerState
from owl3.train.loop import train
from owl3.train.metrics import SpikeDetector
from owl3.train.stages import Spikes
from train.toy import ToyOrder, toy_run, toy_stage


def losses_of(run_folder: Path, **settings: object) -> tuple[list[float], TrainerState]:
    """Train a toy to its end; return the loss of every step and the last state."""
    run, state = toy_run(run_folder, **settings)  # type: ignore[arg-type]
    losses: list[float] = []
    run.log = lambda record: losses.append(record["loss"])
    return losses, train(run, state)


def test_the_loss_falls(tmp_path: Path) -> None:
    losses, state = losses_of(tmp_path, total_steps=40, stage=toy_stage(save_steps=40))
    assert losses[-1] < losses[0] / 2
    assert (state.step, state.samples, state.tokens) == (40, 320, 320)


def test_splitting_a_step_into_micro_batches_changes_nothing_but_rounding(tmp_path: Path) -> None:
    whole, _ = losses_of(tmp_path / "1", order=ToyOrder(micro_batches=1))
    split, _ = losses_of(tmp_path / "8", order=ToyOrder(micro_batches=8))
    assert split == pytest.approx(whole, rel=1e-5)  # fp32 sums in another order


def test_frozen_parts_stay_bit_equal_and_trained_ones_move(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path)
    before = {name: tensor.clone() for name, tensor in run.engine.weights()}
    train(run, state)
    after = dict(run.engine.weights())
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if not name.startswith("vision_model.")}


def test_the_phases_of_a_step_are_told_apart_and_take_no_longer_than_the_step(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path, order=ToyOrder(micro_batches=4))
    records: list[dict[str, Any]] = []
    run.log = lambda record: records.append(dict(record))
    train(run, state)
    for record in records:
        assert set(record["phase_seconds"]) == {"load", "forward", "backward", "exchange", "optimizer"}
        assert all(seconds > 0 for seconds in record["phase_seconds"].values())
        assert sum(record["phase_seconds"].values()) <= record["seconds"] + 1e-5  # each is rounded to a microsecond
        assert record["data_wait"] == record["phase_seconds"]["load"] / record["seconds"]


def test_every_micro_batch_is_progress_so_a_step_may_take_longer_than_the_deadline(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path, order=ToyOrder(micro_batches=4), total_steps=1)
    seen: list[tuple[str, list[str]]] = []
    run.watch = lambda phase, step, rows: seen.append((phase, [sample for _, ids in rows for sample in ids]))
    train(run, state)
    computed = [samples for phase, samples in seen if phase == "compute"]
    assert computed == [[f"sample-0-{row}", f"sample-0-{row + 4}"] for row in range(4)]
    assert [phase for phase, _ in seen if phase != "compute"] == ["load", "exchange", "save"]


@pytest.mark.parametrize("stop_after", [1, 2, 3, 5])
def test_a_run_stopped_anywhere_and_resumed_is_bit_equal_to_one_that_was_not(tmp_path: Path, stop_after: int) -> None:
    _, uninterrupted = losses_of(tmp_path / "whole")
    run, state = toy_run(tmp_path / "resumed")
    asked: list[int] = []
    run.stop_wanted = lambda: asked.append(1) is None and len(asked) == stop_after
    with pytest.raises(Interrupted, match=f"after step {stop_after}"):
        train(run, state)
    _, resumed = losses_of(tmp_path / "resumed")
    assert resumed == uninterrupted  # the history in it holds the digest of the weights at every checkpoint


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_loss_stops_before_the_step_and_names_its_samples(tmp_path: Path, value: float) -> None:
    run, state = toy_run(tmp_path, order=ToyOrder(micro_batches=4, poison=3))
    with pytest.raises(CheckFailed, match=r"no rank took the step.*sample-3-3, sample-3-7"):
        train(run, state)
    incident = json.loads((tmp_path / "incidents" / "nonfinite-000003.json").read_text())
    assert incident["ranks"][0]["micro_batches"][3]["rows"][0] == {"row": 3, "samples": ["sample-3-3"]}
    weights = dict(run.engine.weights())
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def test_a_step_that_holds_other_samples_than_the_plan_is_refused(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path)
    steps = run.steps_from

    def swapped(first: int) -> object:
        for step in steps(first):
            step.fingerprint = (0, 0)
            yield step

    run.steps_from = swapped  # type: ignore[assignment]
    with pytest.raises(CheckFailed, match="other samples than the plan"):
        train(run, state)


def test_a_loss_that_stands_out_is_told_with_its_samples_and_does_not_stop_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, state = toy_run(tmp_path, toy_stage(save_steps=16), total_steps=16)
    run.spikes = SpikeDetector(Spikes(window=10))
    steps = run.steps_from

    def far_off(first: int) -> Iterator[Any]:
        for step in steps(first):
            if step.index == 14:
                step.micro_batches[0].inputs["labels"] += 100.0  # type: ignore[attr-defined]
            yield step

    run.steps_from = far_off
    assert train(run, state).step == 16
    assert "step 14: loss" in caplog.text
    [path] = (tmp_path / "incidents").iterdir()
    assert str(path) in caplog.text
    incident = json.loads(path.read_text())
    assert incident["ranks"][0]["micro_batches"][0]["rows"][0] == {"row": 0, "samples": ["sample-14-0"]}


def test_every_scheduled_checkpoint_asks_for_an_evaluation_and_the_limit_is_kept(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path, limit=2)
    asked: list[int] = []
    run.on_checkpoint = lambda path, step: asked.append(step)
    train(run, state)
    assert asked == [2, 4, 6]
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000004", "step-000006"]


def test_a_checkpoint_that_is_still_needed_outlives_the_limit(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path, limit=1)
    run.kept_checkpoints = lambda: [run.checkpoints.path(2)]
    train(run, state)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000002", "step-000006"]
