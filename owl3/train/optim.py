"""Which parameters learn, in which optimizer group, at which rate. Pure functions of the recipe and the step number.

The rate of a step is computed from its number, so a resumed run needs no scheduler state.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from owl3.errors import ConfigError
from owl3.train.stages import Group, Optimizer, Rate, StageConfig

_GATE = re.compile(r"\.self_attn\.gate(_proj\.\d+\.(weight|bias))?$")  # gated | static_gate; never mlp.gate_proj


def group_of(name: str) -> Group:
    """Tell which part of the model a parameter belongs to, by its released name."""
    name = name.removeprefix("base_model.model.")  # peft puts this in front
    if name.startswith("vision_model."):
        return "vision"
    if name.startswith("vision2text_model."):
        return "projector"
    if ".self_attn.v_kv_proj." in name:
        return "visual_kv"
    if _GATE.search(name):
        return "gate"
    assert name.startswith("language_model."), f"parameter {name} belongs to no trainable group"
    return "language_model"


def freeze(model: nn.Module, trainable: Sequence[Group]) -> None:
    """Let exactly the parameters of the `trainable` groups learn.

    Raises:
        ConfigError: when the model has no parameter of a group (the joint fusion has no gate).
    """
    present = {group_of(name) for name, _ in model.named_parameters()}
    for group in trainable:
        if group not in present:
            raise ConfigError(f"trainable: the model has no parameters in group {group!r} (it has {sorted(present)})")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(name) in trainable)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a rate and a weight decay."""

    group: Group
    rate: Rate
    weight_decay: float
    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]


def parameter_groups(model: nn.Module, stage: StageConfig) -> list[ParameterGroup]:
    """Sort what learns into groups, in an order that depends on the recipe and the model alone.

    Matrices decay; norm weights, biases and gate vectors (fewer than two dimensions) do not.
    """
    buckets: dict[tuple[Group, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = stage.optimizer.weight_decay if len(full_shape(parameter)) >= 2 else 0.0
            buckets.setdefault((group_of(name), decay), []).append((name, parameter))
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
