"""One configuration for the three released architectures, and the shapes they come in.

| release      | fusion      | projector | first sees image at s | rotary position of image | hyper layers |
| ------------ | ----------- | --------- | --------------------- | ------------------------ | ------------ |
| 7B-240728    | gated       | linear    | s + 1                 | s + 1                    | 1 9 17 25    |
| 1B/2B-241014 | static_gate | linear    | s + 1                 | s + 1                    | 1B: 6 13 20 22 |
| 7B-241101    | joint       | mlp       | s                     | s                        | 7 15 23 26   |

Four switches leave the paper's design one piece at a time (`flows/recipes/ablation.yaml`): `fusion: sum` (no gate),
`fusion: concat` (no hyper attention at all), `image_rotary: false` (no MI-RoPE), `shared_layernorm: false`.

s is the position of the first token of the image's placeholder.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig, Qwen2Config, SiglipVisionConfig

from owl3.errors import ConfigError
from owl3.template import Release

Fusion = Literal["gated", "static_gate", "joint", "sum", "concat"]
RELEASE_OF: Mapping[Fusion, Release] = {
    "gated": "240728",
    "static_gate": "241014",
    "joint": "241101",
    "sum": "240728",
    "concat": "240728",
}


@strict
class Owl3Config(PreTrainedConfig):  # type: ignore[misc]
    """Configuration of `Owl3ForConditionalGeneration`.

    Attributes:
        fusion: How a hyper layer joins text and images: `gated` (two softmaxes, mixed by a gate computed from the
            text), `static_gate` (two softmaxes, a learned gate per channel), `joint` (one softmax over both); never
            released: `sum` (two softmaxes, added up), `concat` (image tokens stand in the text; no hyper layers).
        projector: From vision to text: `linear`, or `mlp` (linear, GELU, linear).
        hyper_layers: The layers that look at images, **counted from 1**, as in the released config.json. (The paper
            counts from 0 in one place and from 1 in another; the released weights stand at these numbers less 1.)
        vision_feature_layer: Which hidden state of the vision model is used; -2 leaves its last layer out.
        vision_batch_size: Pictures that go through the vision model at once; 0 = all. Training with parameters sharded
            over ranks (ZeRO-3) takes all at once whatever it says: see `Owl3ForConditionalGeneration.lockstep`.
        initializer_range: Standard deviation of fresh weights of the language model, projector and visual parts.
        vision_position_init_std: Of the vision model's fresh position embedding; None = SigLIP's own, width^-0.5.
            A small model trained from scratch learns *where* things are only if positions are not drowned at first.
        image_rotary: Rotate an image's keys by its place in the text (MI-RoPE); else they are not rotated at all.
        shared_layernorm: Images go through the layer's own input norm, as published; else through one of their own.
        template: The release whose conversation template the model reads; None = that of its fusion.
        loss_chunk_size: Tokens whose logits are held at once while computing the loss; 0 = all.
    """

    model_type = "owl3"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"text_config": Qwen2Config, "vision_config": SiglipVisionConfig}

    text_config: Any = None
    vision_config: Any = None
    fusion: Fusion = "joint"
    projector: Literal["linear", "mlp"] = "mlp"
    hyper_layers: list[int] | tuple[int, ...] = (7, 15, 23, 26)
    vision_feature_layer: int = -2
    vision_batch_size: int = 16
    loss_chunk_size: int = 1024
    initializer_range: float = 0.02
    vision_position_init_std: float | None = None
    image_rotary: bool = True
    shared_layernorm: bool = True
    template: Release | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        self.hyper_layers = sorted(set(self.hyper_layers))
        self.tie_word_embeddings = self.tie_word_embeddings or self.text_config.tie_word_embeddings
        self._check()

    def _check(self) -> None:
        text, vision = self.text_config, self.vision_config
        outside = [layer for layer in self.hyper_layers if not 1 <= layer <= text.num_hidden_layers]
        if outside:
            raise ConfigError(f"hyper_layers: {outside[0]} is not one of layers 1..{text.num_hidden_layers}")
        if self.fusion == "concat" and self.hyper_layers:
            raise ConfigError("hyper_layers: fusion concat has none; set it to []")
        if text.use_sliding_window:
            raise ConfigError("text_config.use_sliding_window: hyper attention has no sliding window; set it to false")
        if text.attention_dropout:
            raise ConfigError("text_config.attention_dropout: hyper attention has none; set it to 0")
        if text.rope_parameters.get("rope_type", "default") != "default":
            raise ConfigError("text_config.rope_parameters.rope_type: images know only the default; set it to default")
        if text.hidden_size % text.num_attention_heads:
            raise ConfigError(
                f"text_config.hidden_size {text.hidden_size} must be a multiple of num_attention_heads "
                f"{text.num_attention_heads}"
            )
        if text.num_attention_heads % text.num_key_value_heads:
            raise ConfigError(
                f"text_config.num_attention_heads {text.num_attention_heads} must be a multiple of "
                f"num_key_value_heads {text.num_key_value_heads}"
            )
        if not -vision.num_hidden_layers - 1 <= self.vision_feature_layer <= -1:
            raise ConfigError(
                f"vision_feature_layer {self.vision_feature_layer} must lie in "
                f"{-vision.num_hidden_layers - 1}..-1, counted from the end"
            )

    @property
    def hyper_layer_indices(self) -> tuple[int, ...]:
        """`hyper_layers` counted from 0, as modules are."""
        return tuple(layer - 1 for layer in self.hyper_layers)

    @property
    def image_offset(self) -> int:
        """How far behind its placeholder's first token an image is placed: its first reader and its rotary position."""
        return 0 if self.fusion == "joint" else 1

    @property
    def release(self) -> Release:
        """The release whose conversation template goes with this architecture."""
        return self.template or RELEASE_OF[self.fusion]

    @property
    def was_released(self) -> bool:
        """Whether the architecture is one of the published three, and none of the ablation's."""
        return self.fusion not in ("sum", "concat") and self.image_rotary and self.shared_layernorm

    @property
    def tokens_per_image(self) -> int:
        """Visual tokens of one picture, L."""
        return int((self.vision_config.image_size // self.vision_config.patch_size) ** 2)

    @property
    def num_vision_layers_used(self) -> int:
        """How many layers of the vision model run; later ones are stored, never used."""
        return int(self.vision_config.num_hidden_layers + 1 + self.vision_feature_layer)

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "Owl3Config":
        """A configuration by name: `7b-240728`, `7b-241101`, `2b-241014`, `1b-241014`, `tiny`.

        `changes` replace top-level values; `text_config` and `vision_config` are merged.

        Raises:
            ConfigError: for an unknown name.
        """
        if name not in PRESETS:
            raise ConfigError(f"unknown model preset {name!r}; one of {', '.join(sorted(PRESETS))}")
        values: dict[str, Any] = {**PRESETS[name], **changes}
        for part in ("text_config", "vision_config"):
            values[part] = {**PRESETS[name][part], **changes.get(part, {})}
        return cls(**values)

    @classmethod
    def from_backbones(cls, language_model: Path, vision_model: Path, **changes: Any) -> "Owl3Config":
        """The configuration of a new model made of a Qwen2 and a SigLIP folder.

        `owl3.model.backbones.from_backbones` makes the model itself.
        """
        from owl3.model.backbones import config_from_backbones

        return config_from_backbones(language_model, vision_model, **changes)


def _qwen2(*, hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, vocab: int, tied: bool) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": mlp,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 32768,
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "tie_word_embeddings": tied,
    }


def _siglip(image_size: int) -> dict[str, Any]:
    """SigLIP-400M (so400m, patch 14): 27 x 27 = 729 tokens at 378 px and, six pixels a side unused, at 384 px."""
    return {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "image_size": image_size,
        "patch_size": 14,
    }


# Sources: the released config.json of 7B-240728, 1B-241014 and 7B-241101. The 2B one was never seen: its text shape
# is Qwen2-1.5B's and its hyper layers follow 241101's; both fit the size of its published file.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "7b-240728": {
        "fusion": "gated",
        "projector": "linear",
        "hyper_layers": [1, 9, 17, 25],
        "text_config": _qwen2(hidden=3584, mlp=18944, layers=28, heads=28, kv_heads=4, vocab=151851, tied=False),
        "vision_config": _siglip(384),
    },
    "7b-241101": {
        "fusion": "joint",
        "projector": "mlp",
        "hyper_layers": [7, 15, 23, 26],
        "text_config": _qwen2(hidden=3584, mlp=18944, layers=28, heads=28, kv_heads=4, vocab=151651, tied=False),
        "vision_config": _siglip(378),
    },
    "2b-241014": {
        "fusion": "static_gate",
        "projector": "linear",
        "hyper_layers": [7, 15, 23, 26],
        "text_config": _qwen2(hidden=1536, mlp=8960, layers=28, heads=12, kv_heads=2, vocab=151851, tied=True),
        "vision_config": _siglip(384),
    },
    "1b-241014": {
        "fusion": "static_gate",
        "projector": "linear",
        "hyper_layers": [6, 13, 20, 22],
        "text_config": _qwen2(hidden=896, mlp=4864, layers=24, heads=14, kv_heads=2, vocab=151851, tied=True),
        "vision_config": _siglip(384),
    },
    # Trained from scratch in minutes on two cores: the demo and the tests. Tied, embeddings would be pushed by the
    # answers' softmax: all tokens that are never answered the same way, digits among them, until all digits are alike.
    "tiny": {
        "fusion": "joint",
        "projector": "mlp",
        "hyper_layers": [1, 3],
        "text_config": _qwen2(hidden=128, mlp=384, layers=4, heads=4, kv_heads=2, vocab=1024, tied=False)
        | {"max_position_embeddings": 4096},
        "vision_config": {
            "hidden_size": 96,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "image_size": 56,
            "patch_size": 14,
        },
    },
}
