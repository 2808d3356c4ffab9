"""What a rank does in the tests of engines: two steps of a real tiny model, then its weights and state, whole."""

from typing import Any

import torch
from torch import Tensor

from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.train import distributed
from owl3.train.assemble import adapt
from owl3.train.engine import make_engine
from owl3.train.export import tensor_digest
from owl3.train.optim import freeze, parameter_groups
from train.toy import toy_stage
from train.world import TINY


def batch(seed: int) -> dict[str, Tensor]:
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


def few_labels_and_no_image(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same text, for a rank that has no picture and fewer tokens to learn from than the others."""
    text = {k: v for k, v in inputs.items() if k not in ("pixel_values", "image_rows", "image_starts")}
    labels = text["labels"].clone()
    labels[:, ::3] = -100
    return {**text, "labels": labels}


_ALL_ARE_LARGE = {"stage3_param_persistence_threshold": 0, "stage3_model_persistence_threshold": 0}
"""ZeRO-3 leaves small tensors whole on every rank: a tiny model would not be partitioned at all."""


def two_steps(settings: dict[str, Any]) -> dict[str, Any]:
    """Losses, gradient norms, every whole tensor of weights and state summed up, and whether loading gives it back.

    Args:
        settings: Of the stage; `fusion` is the model's.
    """
    settings = dict(settings)
    fusion = settings.pop("fusion", "gated")
    stage = toy_stage(
        **{
            "engine": "deepspeed",
            "trainable": ["projector", "visual_kv", "language_model", *(["gate"] if fusion != "joint" else [])],
            **settings,
        }
    )
    world = distributed.start(tensor_parallel=stage.tensor_parallel, timeout_s=60)
    torch.manual_seed(0)
    shapes: dict[str, Any] = {**TINY["config"], "fusion": fusion, "loss_chunk_size": 8}  # type: ignore[dict-item]
    shapes |= {"hyper_layers": []} if fusion == "concat" else {}
    model = Owl3ForConditionalGeneration(Owl3Config.preset("tiny", **shapes))
    adapt(model, stage, seed=0)
    freeze(model, stage.trainable)
    groups = parameter_groups(model, stage)
    engine = make_engine(model, groups, stage, world, {"zero_optimization": _ALL_ARE_LARGE})

    def mine(step: int) -> list[dict[str, Tensor]]:
        return [batch(step), few_labels_and_no_image(batch(step + 100))][world.data_rank :: world.data_size]

    def gradients(step: int) -> float:
        total, rows = 0.0, mine(step)
        for micro, inputs in enumerate(rows, start=1):
            loss = engine.forward(inputs, 90, last=micro == len(rows))
            engine.backward(loss)
            total += float(loss.detach())
        return total

    losses, norms = [], []
    for step in range(2):
        losses.append(world.sum([gradients(step)])[0] / stage.tensor_parallel)
        norms.append(engine.step([0.01] * len(groups)).grad_norm)
    measured = sum(float(engine.evaluate(inputs, 90)) for inputs in mine(2))
    losses.append(world.sum([measured])[0] / stage.tensor_parallel)
    state = dict(engine.state())
    engine.load_state(lambda name: state[name], steps_taken=2)
    again = {name: tensor_digest(tensor) for name, tensor in engine.state()}
    weights = dict(engine.weights())
    result = {
        "losses": losses,
        "norms": norms,
        "sums": {name: tensor.double().abs().sum().item() for name, tensor in (state | weights).items()},
        "shapes": {name: tuple(tensor.shape) for name, tensor in weights.items()},
        "loads_back": again == {name: tensor_digest(tensor) for name, tensor in state.items()},
    }
    distributed.stop()
    return result
