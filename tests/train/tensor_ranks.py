"""What a rank does in the tensor-parallel test: two steps of a real tiny model, then its weights and state, whole."""

from typing import Any

import torch

from owl3.model.config import Fusion, Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.train import distributed
from owl3.train.engine import make_engine
from owl3.train.export import tensor_digest
from owl3.train.optim import freeze, parameter_groups
from train.toy import toy_stage
from train.world import TINY


def batch(seed: int) -> dict[str, torch.Tensor]:
    """Two packed rows: three samples, two pictures."""
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(0, 300, (2, 24), generator=generator)
    segment_ids = torch.ones(2, 24, dtype=torch.int64)
    segment_ids[1, 12:] = 2
    position_ids = torch.arange(24).repeat(2, 1)
    position_ids[1, 12:] -= 12
    return {
        "input_ids": input_ids,
        "segment_ids": segment_ids,
        "position_ids": position_ids,
        "labels": input_ids.clone(),
        "pixel_values": torch.randn(2, 3, 28, 28, generator=generator),
        "image_rows": torch.tensor([0, 1]),
        "image_starts": torch.tensor([2, 14]),
    }


def without_images(inputs: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same text, seen by a rank that has no picture."""
    return {k: v for k, v in inputs.items() if k not in ("pixel_values", "image_rows", "image_starts")}


def two_steps(fusion: Fusion, tensor_parallel: int) -> dict[str, Any]:
    """Losses, gradient norms, every whole tensor of state summed up, and whether loading it gives it back."""
    world = distributed.start(tensor_parallel=tensor_parallel, timeout_s=60)
    torch.manual_seed(0)
    config = Owl3Config.preset("tiny", **{**TINY["config"], "fusion": fusion})  # type: ignore[dict-item]
    model = Owl3ForConditionalGeneration(config).train()
    stage = toy_stage(
        engine="deepspeed",
        tensor_parallel=tensor_parallel,
        trainable=["projector", "visual_kv", "language_model", *(["gate"] if fusion != "joint" else [])],
    )
    freeze(model, stage.trainable)
    groups = parameter_groups(model, stage)
    engine = make_engine(model, groups, stage, world, {})
    losses, norms = [], []
    for step in range(2):
        total = 0.0
        rows = (batch(step), without_images(batch(step + 100)))[world.data_rank :: world.data_size]
        for micro, inputs in enumerate(rows, start=1):
            loss = engine.forward(inputs, 90, last=micro == len(rows))
            engine.backward(loss)
            total += float(loss.detach())
        losses.append(world.sum([total])[0] / tensor_parallel)
        norms.append(engine.step([0.01] * len(groups)).grad_norm)
    state = dict(engine.state())
    engine.load_state(lambda name: state[name], steps_taken=2)
    again = {name: tensor_digest(tensor) for name, tensor in engine.state()}
    result = {
        "losses": losses,
        "norms": norms,
        "state": {name: tensor.double().abs().sum().item() for name, tensor in state.items()},
        "shapes": {name: tuple(tensor.shape) for name, tensor in engine.weights()},
        "loads_back": again == {name: tensor_digest(tensor) for name, tensor in state.items()},
    }
    distributed.stop()
    return result
