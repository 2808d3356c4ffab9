"""Which parameters learn, in which optimizer group, at which rate. Pure functions of the recipe and the step number.

The rate of a step is computed from its number, so a resumed run needs no scheduler state.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.trainable import group_of, set_trainable
from owl3.train.lora import is_adapter
from owl3.train.stages import Group, Optimizer, Rate, StageConfig

logger = logging.getLogger(__name__)


def freeze(model: Owl3ForConditionalGeneration, trainable: Sequence[Group]) -> None:
    """Let exactly the parameters of the `trainable` groups learn; a group that the model does not have is told of.

    Where the language model has adapters, they learn in its place.
    """
    chosen = set_trainable(model, trainable)
    trained = {group_of(model, name) for name in chosen}
    if any(is_adapter(name) for name in chosen):
        for name, parameter in chosen.items():
            parameter.requires_grad_(is_adapter(name) or group_of(model, name) != "language_model")
    for group in trainable:
        if group not in trained:
            logger.warning("trainable: %s has no effect, this model has no such parameters", group)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a rate and a weight decay."""

    group: Group
    rate: Rate
    weight_decay: float
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


def parameter_groups(model: Owl3ForConditionalGeneration, stage: StageConfig) -> list[ParameterGroup]:
    """Sort what learns into groups, in an order that depends on the recipe and the model alone.

    Matrices decay; norm weights, biases and gate vectors (fewer than two dimensions) do not.
    """
    buckets: dict[tuple[Group, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = stage.optimizer.weight_decay if len(full_shape(parameter)) >= 2 else 0.0
            group = group_of(model, name)
            assert group is not None, f"{name} learns, but never runs"
            buckets.setdefault((group, decay), []).append((name, parameter))
    return [
        ParameterGroup(group, stage.rate(group), decay, tuple(n for n, _ in pairs), tuple(p for _, p in pairs))
        for (group, decay), pairs in sorted(buckets.items(), key=lambda item: (item[0][0], -item[0][1]))
    ]


def full_shape(parameter: nn.Parameter) -> tuple[int, ...]:
    """Return the parameter's shape; under ZeRO-3 the one it has when gathered."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def adamw_arguments(groups: Sequence[ParameterGroup], optimizer: Optimizer) -> list[dict[str, object]]:
    """What `torch.optim.AdamW` wants, one entry per group; rates are set before every step."""
    return [
        {
            "params": list(group.parameters),
            "lr": group.rate.max,
            "weight_decay": group.weight_decay,
            "betas": optimizer.betas,
            "eps": optimizer.eps,
        }
        for group in groups
    ]


def rate_at(step: int, total_steps: int, stage: StageConfig, rate: Rate) -> float:
    """Learning rate of a step.

    Args:
        step: Number of the step about to be taken, from 0.
        total_steps: Steps of the whole stage, from the plan.
        rate: The group's maximum and minimum.

    Returns:
        A straight rise to `rate.max` over the warm-up, then the schedule's fall; the last step has `rate.min`.
    """
    warmup_steps = round(stage.learning_rate.warmup_ratio * total_steps)
    if step < warmup_steps:
        return rate.max * (step + 1) / warmup_steps
    if stage.learning_rate.schedule == "constant":
        return rate.max
    done = (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps)
    left = 1 - done if stage.learning_rate.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
    return rate.min + (rate.max - rate.min) * left
