"""Adapters of low rank in the language model, through peft; a model file holds their product added to the matrices.

peft renames a matrix `q_proj.weight` to `q_proj.base_layer.weight` and puts `q_proj.lora_A`, `q_proj.lora_B` beside it.
"""

import re

import torch
from torch import Tensor, nn

from owl3.errors import ConfigError
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.train.stages import Lora

_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
_ADAPTER = "default"


def add_adapters(model: Owl3ForConditionalGeneration, lora: Lora, seed: int) -> None:
    """Put adapters beside the chosen matrices; they start as a change of zero.

    Raises:
        ConfigError: peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError("lora: peft is not installed; pip install 'owl3[lora]'") from error
    attention = [name for name in lora.targets if name in _ATTENTION]
    mlp = [name for name in lora.targets if name not in _ATTENTION]
    # The vision model and the gate have layers of the same names.
    parts = [rf"{part}\.({'|'.join(names)})" for part, names in (("self_attn", attention), ("mlp", mlp)) if names]
    torch.manual_seed(seed)
    inject_adapter_in_model(
        LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=rf"language_model\.model\.layers\.\d+\.({'|'.join(parts)})",
        ),
        model,
        adapter_name=_ADAPTER,
    )


def is_adapter(name: str) -> bool:
    """Whether a parameter is an adapter's."""
    return ".lora_A." in name or ".lora_B." in name


def plain_name(name: str) -> str:
    """The name that a tensor has in a model without adapters."""
    return re.sub(r"\.base_layer\.", ".", name)


def adapter_of(model: nn.Module, name: str) -> tuple[Tensor, Tensor, float] | None:
    """The adapter of a matrix: A (rank, in), B (out, rank) and the scale of B A; None where there is none."""
    if not name.endswith(".base_layer.weight"):
        return None
    layer = model.get_submodule(name.removesuffix(".base_layer.weight"))
    a, b = layer.lora_A[_ADAPTER].weight, layer.lora_B[_ADAPTER].weight  # type: ignore[union-attr, index]
    return a, b, float(layer.scaling[_ADAPTER])  # type: ignore[index]


def merged(matrix: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """The matrix with its adapter's change, computed in fp32."""
    return (matrix.float() + scale * (b.float() @ a.float())).to(matrix.dtype)
