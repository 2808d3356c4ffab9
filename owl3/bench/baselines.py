"""What hyper attention is measured against, on the same Qwen2 shapes and, where they exist, the same weights.

Concatenation    LLaVA's way: image tokens stand in the sequence; transformers' own Qwen2, sdpa
PlainTwoSoftmax  hyper attention as its formula reads: padded rows, masks and repeated heads made in each layer, no
                 visual cache (the released code's habits, vectorised)
bare matmuls     the matrix products alone that hyper attention can't do without
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache, Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import repeat_kv

from owl3.model.config import Owl3Config
from owl3.model.decoder import Owl3DecoderLayer
from owl3.model.hyper_attention import TwoSoftmaxAttention
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.rope import image_rotation, rotate


class Concatenation:
    """Image tokens in the stream of a stock Qwen2."""

    def __init__(self, model: Owl3ForConditionalGeneration) -> None:
        self.model = Qwen2ForCausalLM._from_config(
            model.config.text_config, dtype=model.dtype, attn_implementation="sdpa"
        ).to(model.device)

    @torch.no_grad()
    def prefill(self, ids: Tensor, features: Tensor, starts: Tensor, all_logits: bool = False) -> DynamicCache:
        """One row: text (1, S) with image tokens (I, L, D) put where the images stand."""
        cache = DynamicCache(config=self.model.config)
        embeds = interleave(self.model.get_input_embeddings()(ids), features, starts)
        self.model(inputs_embeds=embeds, past_key_values=cache, use_cache=True, logits_to_keep=0 if all_logits else 1)
        return cache

    @torch.no_grad()
    def step(self, token: Tensor, cache: DynamicCache) -> None:
        """Decode one token."""
        self.model(token, past_key_values=cache, use_cache=True)


def interleave(text: Tensor, features: Tensor, starts: Tensor) -> Tensor:
    """(1, S, D) and (I, L, D) to (1, S + I L, D), each image before the token at its start."""
    num_text, (num_images, length, width) = text.shape[1], features.shape
    key = torch.cat((torch.arange(num_text) * 2 + 1, starts.cpu().repeat_interleave(length) * 2))
    order = key.argsort(stable=True).to(text.device)
    return torch.cat((text[0], features.reshape(num_images * length, width)))[order][None]


class PlainTwoSoftmax:
    """The formula, vectorised over a padded batch, with the weights of a gated or static-gate model."""

    def __init__(self, model: Owl3ForConditionalGeneration) -> None:
        self.model = model
        self.text = model.language_model.model

    def forward(  # noqa: PLR0917
        self,
        ids: Tensor,
        mask: Tensor,
        features: Tensor,
        rows: Tensor,
        starts: Tensor,
        cache: DynamicCache | None = None,
    ) -> Tensor:
        """Last hidden states (B, S, D).

        Args:
            ids: (B, S); with a cache, the new tokens only.
            mask: (B, past + S), 0 = padding (on the right).
            features: (I, L, D) image tokens; rows (I,), starts (I,) tell where they stand.
        """
        past = 0 if cache is None else cache.get_seq_length()
        hidden = self.text.embed_tokens(ids)
        positions = torch.arange(past, past + ids.shape[1], device=ids.device)[None]
        rotation = self.text.rotary_emb(hidden, positions)
        for layer in self.text.layers:
            assert isinstance(layer, Owl3DecoderLayer)
            hidden = self._layer(layer, hidden, rotation, positions, mask, features, rows, starts, cache)
        return self.text.norm(hidden)

    def _layer(  # noqa: PLR0917 - a baseline, kept in one place
        self,
        layer: Owl3DecoderLayer,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        positions: Tensor,
        mask: Tensor,
        features: Tensor,
        rows: Tensor,
        starts: Tensor,
        cache: DynamicCache | None,
    ) -> Tensor:
        attention = layer.self_attn
        y = layer.input_layernorm(hidden)
        q, k, v = attention.project(y, rotation, cache)
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        groups = attention.num_key_value_groups
        column = torch.arange(k.shape[2], device=k.device)
        causal = (column <= positions[0, :, None]) & mask.bool()[:, None, None]
        text = F.scaled_dot_product_attention(q, repeat_kv(k, groups), repeat_kv(v, groups), attn_mask=causal)
        if isinstance(attention, TwoSoftmaxAttention) and len(features):
            image, seen = self._images(layer, attention, q, positions, features, rows, starts)
            gate = attention.gate_of(text.transpose(1, 2)).expand(*text.transpose(1, 2).shape).transpose(1, 2)
            text = torch.where(seen, text * (1 - gate) + image * gate, text)
        hidden = hidden + attention.o_proj(text.transpose(1, 2).flatten(-2))
        return hidden + layer.mlp(layer.post_attention_layernorm(hidden))

    def _images(  # noqa: PLR0917
        self,
        layer: Owl3DecoderLayer,
        attention: TwoSoftmaxAttention,
        q: Tensor,
        positions: Tensor,
        features: Tensor,
        rows: Tensor,
        starts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Attention to images, projected anew, padded to the row with the most."""
        batch, length = q.shape[0], features.shape[1]
        kv = attention.v_kv_proj(layer.input_layernorm(features)).unflatten(-1, (-1, 2, attention.head_dim))
        cos, sin = image_rotation(starts + self.model.config.image_offset, self.text.rotary_emb.inv_freq)
        k, v = rotate(kv[..., 0, :], cos[:, None, None], sin[:, None, None]), kv[..., 1, :]
        counts = torch.bincount(rows, minlength=batch)
        slots = int(counts.max())
        slot = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
        keys, values = (x.new_zeros(batch, slots, *x.shape[1:]).index_put((rows, slot), x) for x in (k, v))
        begin = torch.full((batch, slots), 1 << 30, device=rows.device).index_put((rows, slot), starts)
        visible = positions[0, None, :, None] >= begin[:, None] + self.model.config.image_offset
        seen = visible.any(-1)
        visible = (visible | ~seen[..., None]).repeat_interleave(length, dim=-1)[:, None]
        keys, values = (
            repeat_kv(x.flatten(1, 2).transpose(1, 2), attention.num_key_value_groups) for x in (keys, values)
        )
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=visible), seen[:, None, :, None]


def bare_matmuls(config: Owl3Config, num_text: int, num_images: int, tokens_per_image: int) -> Callable[[], None]:
    """The matrix products of one prefill: linear layers, and full score and value products; nothing else."""
    text = config.text_config
    width, mlp, heads = text.hidden_size, text.intermediate_size, text.num_attention_heads
    size = width // heads
    kv = 2 * text.num_key_value_heads * size
    num_visual, hyper = num_images * tokens_per_image, len(config.hyper_layers)
    x, seen = torch.randn(num_text, width), torch.randn(num_visual, width)
    weights = [torch.randn(width, columns) for columns in (width, kv, width, mlp, mlp)]
    down, head = torch.randn(mlp, width), torch.randn(width, text.vocab_size)
    query, key = torch.randn(heads, num_text, size), torch.randn(heads, size, num_text)
    visual_key = torch.randn(heads, size, num_visual)

    def products() -> None:
        for layer in range(text.num_hidden_layers):
            for weight in weights[:4]:
                x @ weight
            wide = x @ weights[3]
            wide @ down
            (query @ key) @ key.transpose(1, 2)
            if layer < hyper and num_visual:
                seen @ weights[1]
                (query @ visual_key) @ visual_key.transpose(1, 2)
        x[-1:] @ head

    return products
