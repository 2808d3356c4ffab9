"""A new model from a Qwen2 and a SigLIP that were trained apart.

    language_model   Qwen2's weights, as they are
    vision_model     SigLIP's vision weights, as they are
    v_kv_proj        of each hyper layer: that layer's own k_proj and v_proj, head by head
    gate, projector  fresh

So a new hyper layer reads an image token as it would read a text token with the same features.
Source: mPLUG-Owl3 (arXiv:2408.04840 §2.2).
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2Config, Qwen2ForCausalLM, SiglipVisionConfig, SiglipVisionModel

from owl3.errors import InputError
from owl3.model.config import Owl3Config
from owl3.model.hyper_attention import HyperAttention
from owl3.model.modeling import Owl3ForConditionalGeneration


def config_from_backbones(language_model: Path, vision_model: Path, **changes: Any) -> Owl3Config:
    """The configuration of a model made from two folders.

    Args:
        language_model: A Qwen2 checkpoint.
        vision_model: A SigLIP checkpoint, of the whole model or its vision half.
        changes: Top-level values of `Owl3Config`; `hyper_layers` defaults to about every quarter of the layers.

    Raises:
        InputError: when a folder holds something else.
    """
    text = Qwen2Config.from_pretrained(_checked(language_model, ("qwen2",)))
    vision = SiglipVisionConfig.from_pretrained(_checked(vision_model, ("siglip", "siglip_vision_model")))
    changes.setdefault("hyper_layers", default_hyper_layers(text.num_hidden_layers))
    return Owl3Config(text_config=text.to_dict(), vision_config=vision.to_dict(), **changes)


def default_hyper_layers(num_layers: int) -> list[int]:
    """Four layers, counted from 1, spread as in 7B-241101 (7, 15, 23 and 26 of 28); fewer in a small model."""
    return sorted({max(1, round(layer / 28 * num_layers)) for layer in (7, 15, 23, 26)})


def from_backbones(
    language_model: Path, vision_model: Path, *, dtype: torch.dtype | None = None, **changes: Any
) -> Owl3ForConditionalGeneration:
    """Build a model from a Qwen2 folder and a SigLIP folder; see the head of this file.

    Raises:
        InputError: when a folder holds something else, or weights of other shapes than its config says.
    """
    config = config_from_backbones(language_model, vision_model, **changes)
    dtype = dtype or torch.float32
    model = Owl3ForConditionalGeneration._from_config(config, dtype=dtype)
    text = Qwen2ForCausalLM.from_pretrained(language_model, dtype=dtype)
    added = _load(model.language_model, text.state_dict(), language_model)
    del text
    _load(model.vision_model, SiglipVisionModel.from_pretrained(vision_model, dtype=dtype).state_dict(), vision_model)
    foreign = [name for name in added if not _is_new(name)]
    if foreign:
        raise InputError(f"{language_model}: has no weight {foreign[0]}")
    model.tie_weights()
    for module in model.modules():
        if isinstance(module, HyperAttention):
            copy_visual_kv(module)
    return model


@torch.no_grad()
def copy_visual_kv(attention: HyperAttention) -> None:
    """Set the visual projection to the layer's own keys and values: per key-value head, d rows of K, then d of V."""
    for name in ("weight", "bias"):
        k, v = (getattr(projection, name) for projection in (attention.k_proj, attention.v_proj))
        heads = [x.unflatten(0, (-1, attention.head_dim)) for x in (k, v)]
        getattr(attention.v_kv_proj, name).copy_(torch.stack(heads, dim=1).flatten(0, 2))


def _is_new(name: str) -> bool:
    return ".v_kv_proj." in name or ".self_attn.gate" in name or name == "lm_head.weight"


def _load(module: nn.Module, state: dict[str, Tensor], folder: Path) -> list[str]:
    """Load all of `state`; return the names that the module has besides."""
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{folder}: {' '.join(str(error).split())}") from error
    if unexpected:
        raise InputError(f"{folder}: holds {unexpected[0]}, which this architecture has no place for")
    return list(missing)


def _checked(folder: Path, model_types: tuple[str, ...]) -> Path:
    from owl3.model.convert import read_config

    found = read_config(folder).get("model_type")
    if found not in model_types:
        raise InputError(f"{folder}: holds a {found!r} checkpoint, expected {' or '.join(model_types)}")
    return folder
