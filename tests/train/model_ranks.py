"""What a rank does in the tests of engines: two steps of a real tiny model, then its weights and state, whole."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.train import distributed
from owl3.train.assemble import adapt
from owl3.train.engine import DTYPES, make_engine, take_step
from owl3.train.export import tensor_digest
from owl3.train.optim import ParameterGroup, freeze, parameter_groups
from train.toy import toy_stage
from train.toy_ranks import pretend_fp16
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


def errors_of_a_long_step(zero_stages: list[int]) -> list[float]:
    """How far, under each ZeRO stage, a bf16 gradient of 16 micro-batches is from the exact sum of all of theirs."""
    count, world = 16, distributed.start(timeout_s=60)
    mine = range(count)[world.data_rank :: world.data_size]

    def half(number: int) -> dict[str, Tensor]:
        inputs = batch(number)
        return {**inputs, "pixel_values": inputs["pixel_values"].bfloat16()}

    errors = []
    for zero_stage in zero_stages:
        trainable = ["projector", "visual_kv", "language_model"]
        settings = {"engine": "deepspeed", "precision": "bf16", "zero_stage": zero_stage, "trainable": trainable}
        stage = toy_stage(**settings, optimizer={"clip_norm": 0})
        torch.manual_seed(0)
        model = Owl3ForConditionalGeneration(Owl3Config.preset("tiny", **TINY["config"]))  # type: ignore[arg-type]
        for parameter in model.parameters():
            parameter.data = parameter.data.bfloat16()
        adapt(model, stage, seed=0)
        freeze(model, stage.trainable)
        groups = parameter_groups(model, stage)
        exact = {name: torch.zeros(p.shape) for group in groups for name, p in _named(group)}
        for number in range(count):
            model(**half(number), num_items_in_batch=45 * count).loss.backward()
            for group in groups:
                for name, parameter in _named(group):
                    assert parameter.grad is not None
                    exact[name] += parameter.grad.float()
                    parameter.grad = None
        engine = make_engine(model, groups, stage, world, {})
        for number in mine:
            engine.backward(engine.forward(half(number), 45 * count, last=number == mine[-1]))
        engine.step([0.01] * len(groups))
        first_moment = 1 - stage.optimizer.betas[0]
        state = dict(engine.state())
        off = sum(float((state[f"{n}:exp_avg"] / first_moment - g).square().sum()) for n, g in exact.items())
        errors.append((off / sum(float(g.square().sum()) for g in exact.values())) ** 0.5)
    distributed.stop()
    return errors


def _named(group: ParameterGroup) -> Iterator[tuple[str, nn.Parameter]]:
    return zip(group.names, group.parameters, strict=True)


def two_steps(settings: dict[str, Any]) -> dict[str, Any]:
    """Losses, gradient norms, every whole tensor of weights and state summed up, and whether loading gives it back.

    Args:
        settings: Of the stage; `fusion` is the model's, `offload` the machine's.
    """
    settings = dict(settings)
    fusion, offload = settings.pop("fusion", "gated"), settings.pop("offload", {})
    if settings.get("precision") == "fp16":
        pretend_fp16()
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
    for parameter in model.parameters():
        parameter.data = parameter.data.to(DTYPES[stage.precision])
    adapt(model, stage, seed=0)
    freeze(model, stage.trainable)
    groups = parameter_groups(model, stage)
    engine = make_engine(model, groups, stage, world, {"zero_optimization": {**_ALL_ARE_LARGE, **offload}})

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
        norms.append(take_step(engine, [0.01] * len(groups), partial(gradients, step)).grad_norm)
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
