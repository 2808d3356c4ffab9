"""The exponential moving average of what learns: kept, resumed, and what a checkpoint hands over."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from owl3.errors import Interrupted
from owl3.train.checkpoint import handed_over
from owl3.train.export import digests_on_disk, weights_digest
from owl3.train.loop import train
from train.toy import load_toy, toy_run, toy_stage

STAGE = toy_stage(ema_decay=0.75, save_steps=1)


def test_the_average_is_that_of_the_weights_after_every_step(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path, STAGE)
    expected = {name: tensor.clone() for name, tensor in load_toy(None).state_dict().items()}
    state = train(run, state)
    for step in range(1, 7):
        live = load_file(run.checkpoints.path(step) / "model" / "model.safetensors")
        expected = {name: 0.75 * expected[name] + 0.25 * live[name] for name in expected}
    folder = handed_over(run.checkpoints.path(6))
    assert folder.name == "average"
    averaged = load_file(folder / "model.safetensors")
    assert averaged.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(averaged[name], tensor)
    assert state.history[-1].weights == weights_digest(digests_on_disk(folder))
    assert not torch.equal(averaged["language_model.0.weight"], live["language_model.0.weight"])


def test_a_resumed_run_goes_on_with_its_average(tmp_path: Path) -> None:
    run, state = toy_run(tmp_path / "whole", STAGE)
    whole = train(run, state)
    run, state = toy_run(tmp_path / "resumed", STAGE)
    run.stop_wanted = lambda: True
    with pytest.raises(Interrupted):
        train(run, state)
    run, state = toy_run(tmp_path / "resumed", STAGE)
    assert train(run, state) == whole  # its history holds the digests of the averaged weights
