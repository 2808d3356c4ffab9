"""How much of the accelerators' arithmetic a step uses: model FLOPs over what the cards could do in the same time.

Counted as usual: two operations per weight and token in the forward pass; in the backward pass two more where a weight
learns and two more where a gradient passes through. Attention scores, recomputation and padding are not counted.
"""

from dataclasses import dataclass

import torch

from owl3.model.config import Owl3Config
from owl3.train.distributed import World
from owl3.train.stages import StageConfig

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "B200": 2250e12, "A100": 312e12, "L40S": 362e12, "V100": 125e12}
"""Dense half precision of a card, by a part of its name (data sheets)."""


@dataclass(frozen=True)
class StepFlops:
    """Operations per text token and per picture, and what all ranks together can do in a second."""

    per_token: float
    per_image: float
    peak: float | None  # None on a CPU, or on a card that is not in the table

    @classmethod
    def of(cls, config: Owl3Config, stage: StageConfig, world: World) -> "StepFlops":
        """Count for a model and a stage."""
        text, vision = config.text_config, config.vision_config
        head = text.hidden_size // text.num_attention_heads
        kv_width = 2 * text.num_key_value_heads * head
        layer = text.hidden_size * (2 * text.hidden_size + kv_width) + 3 * text.hidden_size * text.intermediate_size
        # The head is left out of the layers: its logits are computed for trained tokens alone.
        text_weights = text.num_hidden_layers * layer
        learns = "language_model" in stage.trainable
        vision_layer = 4 * vision.hidden_size**2 + 2 * vision.hidden_size * vision.intermediate_size
        vision_weights = config.num_vision_layers_used * vision_layer
        vision_passes = 6 if "vision_model" in stage.trainable else 2
        new_weights = vision.hidden_size * text.hidden_size + len(config.hyper_layers) * text.hidden_size * kv_width
        per_visual_token = vision_passes * vision_weights + 6 * new_weights
        return cls(
            per_token=(6 if learns else 4) * text_weights,
            per_image=per_visual_token * config.tokens_per_image,
            peak=_peak(world),
        )

    def utilisation(self, tokens: int, images: int, seconds: float) -> float | None:
        """Share of the peak that a step of all ranks reached."""
        if self.peak is None:
            return None
        return (tokens * self.per_token + images * self.per_image) / seconds / self.peak


def _peak(world: World) -> float | None:
    if world.device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(world.device)
    return next((world.size * peak for part, peak in PEAK_FLOPS.items() if part in name), None)
