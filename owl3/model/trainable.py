"""Which weights a stage trains: five groups by name.

    projector       vision2text_model                       vision to text width
    visual_kv       self_attn.v_kv_proj of hyper layers      keys and values of images (and image_norm, if not shared)
    gate            self_attn.gate_proj, self_attn.gate      share of the images (none in joint fusion)
    language_model  everything else of language_model
    vision_model    the layers of vision_model that run

The last layer of the vision model, its final norm and its pooling head are stored in checkpoints but never run. They
belong to no group: trained, they would wait for gradients that never come.
"""

from collections.abc import Sequence
from typing import Literal, get_args

from torch import nn

from owl3.errors import ConfigError
from owl3.model.modeling import Owl3ForConditionalGeneration

ParameterGroup = Literal["projector", "visual_kv", "gate", "language_model", "vision_model"]
PARAMETER_GROUPS: tuple[ParameterGroup, ...] = get_args(ParameterGroup)


def group_of(model: Owl3ForConditionalGeneration, name: str) -> ParameterGroup | None:
    """The group of a parameter by its name; None for one that never runs."""
    if name.startswith("vision2text_model."):
        return "projector"
    if name.startswith("vision_model."):
        layer = name.removeprefix("vision_model.encoder.layers.").split(".")[0]
        runs = name.startswith("vision_model.embeddings.") or (
            layer.isdigit() and int(layer) < model.config.num_vision_layers_used
        )
        return "vision_model" if runs else None
    if ".self_attn.v_kv_proj." in name or ".self_attn.image_norm." in name:
        return "visual_kv"
    if ".self_attn.gate" in name:
        return "gate"
    return "language_model"


def grouped_parameters(model: Owl3ForConditionalGeneration) -> dict[ParameterGroup, dict[str, nn.Parameter]]:
    """Every parameter that runs, by group and name. A tied head stands once, under the embedding's name."""
    groups: dict[ParameterGroup, dict[str, nn.Parameter]] = {group: {} for group in PARAMETER_GROUPS}
    for name, parameter in model.named_parameters():
        group = group_of(model, name)
        if group is not None:
            groups[group][name] = parameter
    return groups


def set_trainable(model: Owl3ForConditionalGeneration, groups: Sequence[str]) -> dict[str, nn.Parameter]:
    """Train these groups, freeze all else.

    A group that the model has no parameters of (the gate, in joint fusion) is no error: one stage recipe serves all
    architectures.

    Returns:
        The trained parameters by name.

    Raises:
        ConfigError: for a name that is no group.
    """
    for group in groups:
        if group not in PARAMETER_GROUPS:
            raise ConfigError(f"unknown parameter group {group!r}; one of {', '.join(PARAMETER_GROUPS)}")
    trained: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(group_of(model, name) in groups)
        if parameter.requires_grad:
            trained[name] = parameter
    return trained
