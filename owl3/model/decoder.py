"""The language model's side of Owl3: Qwen2's decoder, some of whose layers look at images.

Which layers those are, and how they look, the configuration says (`hyper_layers`, `fusion`). Who attends to whom is
planned outside (`owl3.model.layout`), so this file knows nothing of rows, packing or padding.

Shape letters: B rows (1 for a stream), S tokens, D width.
"""

from typing import Any, ClassVar

from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import PreTrainedModel, Qwen2Config
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, Qwen2RotaryEmbedding

from owl3.errors import InputError
from owl3.model.cache import Owl3Cache
from owl3.model.config import Owl3Config
from owl3.model.hyper_attention import (
    FUSIONS,
    HyperAttention,
    Images,
    Rotation,
    SelfAttention,
    StaticGatedAttention,
    images_at_once,
)
from owl3.model.layout import Layout
from owl3.model.loss import Owl3Head
from owl3.model.mlp import Owl3MLP
from owl3.model.norm import Owl3RMSNorm, unit_rms


class Owl3DecoderLayer(GradientCheckpointingLayer):  # type: ignore[misc]
    """A Qwen2 layer; a hyper layer if its attention reads images."""

    def __init__(self, config: Qwen2Config, layer_idx: int, attention: type[SelfAttention]) -> None:
        super().__init__()
        self.self_attn = attention(config, layer_idx)
        self.mlp = Owl3MLP(config)
        self.input_layernorm = Owl3RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = Qwen2RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self, hidden: Tensor, rotation: Rotation, layout: Layout, images: Images | None, cache: Owl3Cache | None
    ) -> Tensor:
        """(B, S, D) -> (B, S or what the layout asks for, D). Text and images go through the same input norm."""
        attended = self.self_attn(hidden, rotation, layout, images, cache, self.input_layernorm)
        hidden = hidden[:, -attended.shape[1] :] + attended
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class Owl3PreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """What transformers needs to know to build, load and save the model."""

    config_class = Owl3Config
    config: Owl3Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar[list[str]] = ["Owl3DecoderLayer", "SiglipEncoderLayer", "SiglipVisionEmbeddings"]
    _skip_keys_device_placement: ClassVar[list[str]] = ["past_key_values"]
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    def _init_weights(self, module: nn.Module) -> None:
        """Fresh weights: normal, with gates that let through half of each side (as published)."""
        super()._init_weights(module)
        if isinstance(module, StaticGatedAttention):
            init.zeros_(module.gate)

    @classmethod
    def from_pretrained(cls, folder: Any, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        """As transformers', but strict: a checkpoint of another architecture, or with weights missing, is an error.

        Weights are read from safetensors alone; pickles (`pytorch_model.bin`) are not opened.

        Raises:
            InputError: naming the first weight that is missing, left over or of another shape.
        """
        kwargs["use_safetensors"] = True
        try:
            model, info = super().from_pretrained(
                folder, *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        except (OSError, SafetensorError, RuntimeError) as error:
            raise InputError(f"{folder}: can't be loaded: {' '.join(str(error).split())}") from error
        for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            names = sorted(map(str, info[problem]))
            if names:
                raise InputError(
                    f"{folder}: {len(names)} {problem.replace('_keys', ' weights')}, the first is {names[0]}"
                )
        return (model, info) if output_loading_info else model


class Owl3TextModel(Owl3PreTrainedModel):
    """Qwen2's layers, some of them hyper layers."""

    def __init__(self, config: Owl3Config) -> None:
        super().__init__(config)
        text = config.text_config
        hyper = set(config.hyper_layer_indices)
        self.embed_tokens = nn.Embedding(text.vocab_size, text.hidden_size)
        self.layers = nn.ModuleList(
            Owl3DecoderLayer(text, index, FUSIONS[config.fusion] if index in hyper else SelfAttention)
            for index in range(text.num_hidden_layers)
        )
        for module in self.modules():
            if isinstance(module, HyperAttention) and not config.shared_layernorm:
                module.image_norm = Owl3RMSNorm(text.hidden_size, eps=text.rms_norm_eps)
        self.norm = Qwen2RMSNorm(text.hidden_size, eps=text.rms_norm_eps)
        self.rotary_emb = Qwen2RotaryEmbedding(text)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(  # noqa: PLR0917 - as a layer takes them
        self,
        embeds: Tensor,
        positions: Tensor,
        layout: Layout,
        images: Images | None = None,
        cache: Owl3Cache | None = None,
        last_layout: Layout | None = None,
    ) -> Tensor:
        """Embeddings (B, S, D) at positions (B or 1, S) to the normed last hidden state (B, S, D).

        With `last_layout`, (B, what it asks for, D): the last layer's other columns serve as keys and values alone.
        """
        hidden = embeds
        rotation = self.rotary_emb(hidden, positions)
        *layers, last = self.layers
        for layer in layers:
            hidden = layer(hidden, rotation, layout, images, cache)
        return self.norm(last(hidden, rotation, last_layout or layout, images, cache))

    def remember(
        self, tokens: Tensor, rotation: Rotation, slots: Tensor | None, num_rows: int, cache: Owl3Cache
    ) -> None:
        """Project image tokens for every hyper layer, and keep their keys and values in a cache.

        A few images at a time go through all layers: normed and projected, hundreds of them would outweigh the model.

        Args:
            tokens: (I, L, D)
            rotation: (I, d) each, fp32, of their placeholders' positions.
            slots: (B, slots) which image fills which slot of a row. None: they fill the rows one by one, as they stand.
            num_rows: B.
            cache: Where they are kept; it has made room for them (`Owl3Cache.add_images`).
        """
        hyper = [
            (layer.self_attn, layer.input_layernorm)
            for layer in self.layers
            if isinstance(layer, Owl3DecoderLayer) and isinstance(layer.self_attn, HyperAttention)
        ]
        at_once = images_at_once(tokens.shape[1])
        projected: list[Tensor] = []  # per layer (2, K, I, L, d)
        for start in range(0, len(tokens), at_once):
            part = slice(start, start + at_once)
            unit = unit_rms(tokens[part], self.config.text_config.rms_norm_eps)
            images = Images(unit, (rotation[0][part], rotation[1][part]))
            for number, (attention, norm) in enumerate(hyper):
                new = [x.permute(2, 0, 1, 3) for x in attention.project_images(images, norm)]
                if not start:
                    heads, _, *each = new[0].shape
                    projected.append(new[0].new_empty(2, heads, len(tokens), *each, device=cache.home(new[0].device)))
                projected[number][0, :, part], projected[number][1, :, part] = new
        for attention, _ in reversed(hyper):
            both = projected.pop()
            if slots is not None:
                both = both.index_select(2, slots.flatten().to(both.device))
            k, v = both.unflatten(2, (num_rows, -1)).flatten(3, 4).transpose(1, 2)
            cache.add_visual(attention.layer_idx, (k, v))


class Owl3LanguageModel(nn.Module):
    """The language model as released checkpoints name it: `language_model.model`, `language_model.lm_head`."""

    def __init__(self, config: Owl3Config) -> None:
        super().__init__()
        self.model = Owl3TextModel(config)
        self.lm_head = Owl3Head(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
