"""Operations are counted as papers count them."""

import pytest
import torch

from owl3.model.config import Owl3Config
from owl3.train.flops import StepFlops
from owl3.train.footprint import count_parameters
from train.toy import alone, toy_stage


def test_a_trained_language_model_costs_six_operations_per_weight_and_token() -> None:
    """Of its matrices in the layers: biases, norms, embeddings and head are under a tenth of Qwen2-7B."""
    config = Owl3Config.preset("7b-240728")
    flops = StepFlops.of(config, toy_stage(), alone())
    weights = count_parameters(config, ("language_model",)).trained - 2 * 151851 * 3584  # embeddings and head
    assert flops.per_token == pytest.approx(6 * weights, rel=0.01)


def test_a_frozen_language_model_costs_four() -> None:
    config = Owl3Config.preset("tiny")
    learns = StepFlops.of(config, toy_stage(), alone())
    frozen = StepFlops.of(config, toy_stage(trainable=["projector"]), alone())
    assert frozen.per_token == learns.per_token * 4 / 6


def test_utilisation_is_unknown_on_a_cpu_and_a_share_elsewhere() -> None:
    assert StepFlops.of(Owl3Config.preset("tiny"), toy_stage(), alone()).utilisation(10, 1, 1.0) is None
    assert StepFlops(per_token=2.0, per_image=10.0, peak=100.0).utilisation(10, 1, 1.0) == pytest.approx(0.3)
    assert not torch.cuda.is_available() or StepFlops.of(Owl3Config.preset("tiny"), toy_stage(), alone()).peak is None
