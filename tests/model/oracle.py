"""The model from its formulas, slowly: one sample, one token, one head at a time, with no mask and no tensor trick.

Written from the paper and the facts about the released code, sharing nothing with the model but its weights' names.
Only SigLIP and the projector are taken from the model (`features`); test_oracle.py checks those too.
"""

import math

import torch
from torch import Tensor

from owl3.model.config import Owl3Config

Weights = dict[str, Tensor]


def oracle_logits(config: Owl3Config, weights: Weights, ids: list[int], starts: list[int], features: Tensor) -> Tensor:
    """(length, vocabulary) logits of a sample.

    Args:
        starts: Where each image's placeholder begins.
        features: (I, L, D) projected visual tokens.
    """
    text = config.text_config
    name = "language_model.model."
    hidden = [weights[name + "embed_tokens.weight"][token] for token in ids]
    for layer in range(text.num_hidden_layers):
        part = {
            key.removeprefix(f"{name}layers.{layer}."): value
            for key, value in weights.items()
            if key.startswith(f"{name}layers.{layer}.")
        }
        is_hyper = layer + 1 in config.hyper_layers
        normed = [_norm(x, part["input_layernorm.weight"], text.rms_norm_eps) for x in hidden]
        seen = [[_norm(x, part["input_layernorm.weight"], text.rms_norm_eps) for x in image] for image in features]
        attended = _attention(config, part, normed, starts if is_hyper else [], seen if is_hyper else [])
        hidden = [x + part["self_attn.o_proj.weight"] @ a for x, a in zip(hidden, attended, strict=True)]
        for index, x in enumerate(hidden):
            y = _norm(x, part["post_attention_layernorm.weight"], text.rms_norm_eps)
            gate, up = part["mlp.gate_proj.weight"] @ y, part["mlp.up_proj.weight"] @ y
            hidden[index] = x + part["mlp.down_proj.weight"] @ (gate * torch.sigmoid(gate) * up)
    head = weights.get("language_model.lm_head.weight", weights[name + "embed_tokens.weight"])
    return torch.stack([head @ _norm(x, weights[name + "norm.weight"], text.rms_norm_eps) for x in hidden])


def _attention(
    config: Owl3Config, part: Weights, text: list[Tensor], starts: list[int], images: list[list[Tensor]]
) -> list[Tensor]:
    heads, kv_heads = config.text_config.num_attention_heads, config.text_config.num_key_value_heads
    size = config.text_config.hidden_size // heads
    theta = config.text_config.rope_parameters["rope_theta"]
    joint = config.fusion == "joint"
    offset = 0 if joint else 1

    def project(name: str, x: Tensor, first: int) -> Tensor:
        rows = slice(first, first + size)
        return part[f"self_attn.{name}.weight"][rows] @ x + part[f"self_attn.{name}.bias"][rows]

    outputs = []
    for position in range(len(text)):
        per_head = []
        for head in range(heads):
            kv = head // (heads // kv_heads)
            query = _rotate(project("q_proj", text[position], head * size), position, theta)
            keys = [_rotate(project("k_proj", text[p], kv * size), p, theta) for p in range(position + 1)]
            values = [project("v_proj", text[p], kv * size) for p in range(position + 1)]
            image_keys, image_values = [], []
            for start, image in zip(starts, images, strict=True):
                if position >= start + offset:
                    for token in image:
                        key = project("v_kv_proj", token, 2 * kv * size)
                        image_keys.append(_rotate(key, start + offset, theta))
                        image_values.append(project("v_kv_proj", token, (2 * kv + 1) * size))
            if joint:
                per_head.append(_softmax_mix(query, image_keys + keys, image_values + values))
                continue
            own = _softmax_mix(query, keys, values)
            if image_keys:
                gate = _gate(part, own, head, size)
                own = own * (1 - gate) + _softmax_mix(query, image_keys, image_values) * gate
            per_head.append(own)
        outputs.append(torch.cat(per_head))
    return outputs


def _gate(part: Weights, own: Tensor, head: int, size: int) -> Tensor:
    if "self_attn.gate" in part:
        return torch.sigmoid(part["self_attn.gate"][head * size : (head + 1) * size])
    return torch.sigmoid(part["self_attn.gate_proj.0.weight"] @ own + part["self_attn.gate_proj.0.bias"])


def _softmax_mix(query: Tensor, keys: list[Tensor], values: list[Tensor]) -> Tensor:
    scores = [float(query @ key) / math.sqrt(len(query)) for key in keys]
    highest = max(scores)
    weights = [math.exp(score - highest) for score in scores]
    total = sum(weights)
    mixed = torch.zeros_like(values[0])
    for weight, value in zip(weights, values, strict=True):
        mixed = mixed + weight / total * value
    return mixed


def _rotate(x: Tensor, position: int, theta: float) -> Tensor:
    half = len(x) // 2
    turned = x.clone()
    for i in range(half):
        angle = position / theta ** (2 * i / len(x))
        turned[i] = x[i] * math.cos(angle) - x[i + half] * math.sin(angle)
        turned[i + half] = x[i + half] * math.cos(angle) + x[i] * math.sin(angle)
    return turned


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return x / torch.sqrt((x * x).mean() + eps) * weight
