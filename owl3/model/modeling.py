"""The Owl3 model: a Qwen2 language model that looks at SigLIP images in a few hyper attention layers.

The tensor contract of `Owl3ForConditionalGeneration.forward`. B rows, S columns, I images in the whole batch,
L visual tokens per image. A *row* holds one sample (perhaps padded, on either side) or several samples (packed).

| argument             | shape, dtype       | meaning                                                           |
| -------------------- | ------------------ | ----------------------------------------------------------------- |
| `input_ids`          | (B, S) int64       | token ids; the `<|image|>` placeholder is five ordinary tokens    |
| `segment_ids`        | (B, S) int64       | 0 = padding; 1, 2, … = the row's samples, each one run of columns |
| `position_ids`       | (B, S) int64       | rotary positions, from 0 in every sample; padding: any value      |
| `pixel_values`       | (I, 3, H, W) float | all pictures of the batch (global views, tiles, frames alike)     |
| `image_rows`         | (I,) int64         | the row in which the image's placeholder stands                   |
| `image_starts`       | (I,) int64         | the *column* (not position) of the placeholder's first token      |
| `labels`             | (B, S) int64       | `input_ids` where trained, -100 elsewhere; **not** shifted        |
| `num_items_in_batch` | int or 0-d tensor  | the loss is the sum of token losses divided by this               |

* All but `input_ids` may be absent. Without `segment_ids`, `attention_mask` (B, S; 1 = token, 0 = padding) says the
  same for one sample per row; without both, every column is a token. Without `position_ids` they are counted from
  the first token of each sample. Without `num_items_in_batch` the loss is a mean over this batch's trained tokens.
* A batch without any image passes `pixel_values=None` (and no `image_rows`, `image_starts`). Every trainable visual
  parameter still takes part, with zero effect and a zero (not missing) gradient.
* Order of images is free; an image is seen only by later tokens of its own sample.
* A label at the first token of a packed sample is ignored: no token of the same sample comes before it.
* With `labels` the result holds `loss` and no logits, unless `return_logits=True`.
* `image_index` (N,) int64 lets an image be shown N times: then `image_rows` and `image_starts` are (N,) and say where
  picture `image_index[n]` stands. It is how beams share a picture.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from transformers import SiglipVisionModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import slice_logits_to_keep

from owl3.errors import InputError
from owl3.model.cache import Owl3Cache
from owl3.model.concatenation import concatenate
from owl3.model.config import Owl3Config
from owl3.model.decoder import Owl3DecoderLayer, Owl3LanguageModel, Owl3PreTrainedModel, Owl3TextModel
from owl3.model.generation import Owl3GenerationMixin
from owl3.model.hyper_attention import Images, Rotation
from owl3.model.inputs import Inputs, check_cache, check_inputs, check_positions
from owl3.model.layout import StreamLayout
from owl3.model.loss import Owl3Head, next_token_loss
from owl3.model.norm import unit_rms
from owl3.model.planning import plan_cached, plan_slots, plan_stream
from owl3.model.rope import image_rotation

__all__ = [
    "Owl3DecoderLayer",
    "Owl3ForConditionalGeneration",
    "Owl3LanguageModel",
    "Owl3Output",
    "Owl3PreTrainedModel",
    "Owl3TextModel",
]


@dataclass
class Owl3Output(ModelOutput):  # type: ignore[misc]
    """What `forward` returns.

    `loss` is 0-d, `logits` (B, S or fewer, vocabulary), `last_hidden_state` (B, S, D), normed, and 0 on padding; with a
    cache it has the columns that `logits_to_keep` keeps.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Owl3Cache | None = None
    last_hidden_state: Tensor | None = None


class Owl3ForConditionalGeneration(Owl3PreTrainedModel, Owl3GenerationMixin):
    """SigLIP, a projector and a Qwen2 with hyper attention. The arguments of `forward` are at the head of this file."""

    _tied_weights_keys: ClassVar[dict[str, str]] = {
        "language_model.lm_head.weight": "language_model.model.embed_tokens.weight"
    }

    def __init__(self, config: Owl3Config) -> None:
        super().__init__(config)
        text, vision = config.text_config, config.vision_config
        self.language_model = Owl3LanguageModel(config)
        self.vision_model = SiglipVisionModel._from_config(vision)  # which initialises itself
        if config.vision_position_init_std is not None:
            init.normal_(self.vision_model.embeddings.position_embedding.weight, std=config.vision_position_init_std)
        linear = nn.Linear(vision.hidden_size, text.hidden_size)
        self.vision2text_model: nn.Module = (
            linear
            if config.projector == "linear"
            else nn.Sequential(linear, nn.GELU(), nn.Linear(text.hidden_size, text.hidden_size))
        )
        self.lockstep = False
        """Run the same modules equally often whatever a batch holds: under ZeRO-3 ranks gather a module's weights
        together, and one that skipped a module would leave the others waiting."""
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.language_model.model.embed_tokens

    def set_input_embeddings(self, value: nn.Embedding) -> None:
        """Replace the token embedding."""
        self.language_model.model.embed_tokens = value

    def get_output_embeddings(self) -> nn.Module:
        """The language model's head."""
        return self.language_model.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the language model's head: its weights, as whoever resizes it makes a plain layer."""
        head = Owl3Head(value.in_features, value.out_features, bias=False, device="meta")
        head.weight = value.weight
        self.language_model.lm_head = head

    # ------------------------------------------------------------------------------------------------------- vision

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Pictures (I, 3, H, W) to visual tokens (I, L, D) of the language model's width.

        Layers after the one whose output is used do not run. Nothing is kept for a backward pass when the vision
        model is frozen.
        """
        chunk = (0 if self.lockstep else self.config.vision_batch_size) or len(pixel_values)
        pixel_values = pixel_values.to(device=self.device, dtype=self.dtype)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self._trains_vision()):
            features = [self._vision_features(part) for part in pixel_values.split(chunk)]
        return self.vision2text_model(features[0] if len(features) == 1 else torch.cat(features))

    def _vision_features(self, pixel_values: Tensor) -> Tensor:
        hidden = self.vision_model.embeddings(pixel_values)
        for layer in self.vision_model.encoder.layers[: self.config.num_vision_layers_used]:
            hidden = layer(hidden, None)
        return hidden

    def _trains_vision(self) -> bool:
        return any(parameter.requires_grad for parameter in self.vision_model.parameters())

    @property
    def wants_anchor(self) -> bool:
        """Whether a batch without images shall have an anchor."""
        return self.lockstep or (self.training and torch.is_grad_enabled())

    def anchor_images(self) -> Images:
        """An image that nobody sees: it keeps the visual parameters in the graph of a batch without images."""
        vision = self.config.vision_config
        if self.lockstep or self._trains_vision():
            side = vision.image_size
            features = self.encode_images(torch.zeros(1, vision.num_channels, side, side))
        else:
            features = self.vision2text_model(
                torch.zeros(1, 1, vision.hidden_size, dtype=self.dtype, device=self.device)
            )
        return self._placed(features, torch.zeros(1, device=self.device), anchor=True)

    def _images(self, inputs: Inputs, order: Tensor | None, position_I: Tensor) -> Images | None:
        """The batch's images in `order` (None = as given), each at the position of its placeholder."""
        if inputs.pixel_values is None:
            return self.anchor_images() if self.wants_anchor and self.config.hyper_layers else None
        return self._placed(self._image_tokens(inputs.pixel_values, inputs.image_index, order), position_I)

    def _image_tokens(self, pixel_values: Tensor, index: Tensor | None, order: Tensor | None) -> Tensor:
        if index is None and order is not None:
            pixel_values = pixel_values[order.to(pixel_values.device)]
        tokens = self.encode_images(pixel_values)
        if index is not None:
            tokens = tokens[(index if order is None else index[order]).to(tokens.device)]
        return tokens

    def _placed(self, tokens: Tensor, position_I: Tensor, anchor: bool = False) -> Images:
        unit = unit_rms(tokens, self.config.text_config.rms_norm_eps)
        return Images(unit, self._rotation(position_I), anchor=anchor, at_once=self.lockstep)

    def _rotation(self, position_I: Tensor) -> Rotation:
        """Of images whose placeholders stand there; without MI-RoPE every image stands at 0, where nothing turns."""
        place = (position_I + self.config.image_offset) * self.config.image_rotary
        return image_rotation(place, self.language_model.model.rotary_emb.inv_freq)

    # ------------------------------------------------------------------------------------------------------ forward

    def forward(  # noqa: PLR0917 - in transformers' order
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        segment_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_rows: Tensor | None = None,
        image_starts: Tensor | None = None,
        image_index: Tensor | None = None,
        past_key_values: Owl3Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: float | Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_logits: bool | None = None,
        z_loss: float = 0.0,
        **kwargs: Any,
    ) -> Owl3Output:
        """The tensors are described at the head of this file.

        Args:
            past_key_values: An `Owl3Cache`, to go on from and to fill. `attention_mask` is then (B, past + S), and
                rows can't be packed.
            use_cache: Make a cache and return it. Off unless asked for: with a cache, padding costs.
            logits_to_keep: Only the last so many columns' logits (0 = all), or those of these columns.
            return_logits: Compute logits although there are labels (or don't, although there are none).
            z_loss: See `owl3.model.loss`.

        Raises:
            InputError: for arguments that contradict each other, saying how.
        """
        unknown = [name for name, value in kwargs.items() if value and name != "return_dict"]
        if unknown:
            raise InputError(f"forward has no use for the argument {unknown[0]}")
        inputs = check_inputs(
            self.config,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            image_rows=image_rows,
            image_starts=image_starts,
            image_index=image_index,
        )
        if use_cache and past_key_values is None:
            past_key_values = Owl3Cache(self.config)
        check_cache(past_key_values, segment_ids, labels)
        loss = logits = sequence = None
        if self.config.fusion == "concat":
            sequence = concatenate(self, inputs, segment_ids, attention_mask, labels, past_key_values)
            inputs, segment_ids, attention_mask, labels = sequence.arguments
            position_ids = None  # counted anew, with the images
        if past_key_values is not None:
            kept = logits_to_keep if sequence is None and isinstance(logits_to_keep, int) else 0
            hidden = self._forward_cached(inputs, attention_mask, position_ids, past_key_values, kept)
        else:
            segments = segment_ids if segment_ids is not None else attention_mask
            stream, layout = self._forward_stream(inputs, segments, position_ids)
            if labels is not None:
                loss = next_token_loss(
                    stream,
                    self.language_model.lm_head,
                    labels,
                    layout,
                    num_items=num_items_in_batch,
                    chunk_size=self.config.loss_chunk_size,
                    z_loss=z_loss,
                )
            hidden = layout.to_batch(stream, inputs.shape)
        if sequence is not None:
            hidden = sequence.text_of(hidden)
        if return_logits or (return_logits is None and labels is None):
            logits = self.language_model.lm_head(slice_logits_to_keep(hidden, logits_to_keep))
        return Owl3Output(loss=loss, logits=logits, past_key_values=past_key_values, last_hidden_state=hidden)

    def _forward_stream(
        self, inputs: Inputs, segment_ids: Tensor | None, position_ids: Tensor | None
    ) -> tuple[Tensor, StreamLayout]:
        """Without cache: the batch's real tokens as one stream, (1, T, D)."""
        if segment_ids is None:
            segments = np.ones(inputs.shape, dtype=np.int64)
        elif tuple(segment_ids.shape) == inputs.shape:
            segments = segment_ids.cpu().numpy().astype(np.int64, copy=False)
        else:
            raise InputError(f"segment_ids (or attention_mask) is {tuple(segment_ids.shape)}, the batch {inputs.shape}")
        layout = plan_stream(segments, inputs.image_rows, inputs.image_starts, **self._plan_options())
        positions, places = layout.positions, layout.image_places
        if position_ids is not None:
            flat = position_ids.to(self.device).expand(inputs.shape).flatten()
            positions = (flat if layout.token_index is None else flat[layout.token_index]).unsqueeze(0)
            places = positions[0, layout.image_tokens]
        check_positions(self.config, positions, inputs.shape[1])
        images = self._images(inputs, layout.image_order, places)
        embeds = inputs.embed(self.get_input_embeddings(), layout.token_index)
        return self.language_model.model(embeds, positions, layout, images), layout

    def _forward_cached(
        self, inputs: Inputs, attention_mask: Tensor | None, position_ids: Tensor | None, cache: Owl3Cache, kept: int
    ) -> Tensor:
        """With a cache: rows stay rows, (B, S, D), or (B, `kept`, D) if only so many last columns are kept."""
        past, (num_rows, num_columns) = cache.num_columns, inputs.shape
        total = past + num_columns
        if attention_mask is not None and tuple(attention_mask.shape) != (num_rows, total):
            raise InputError(
                f"attention_mask is {tuple(attention_mask.shape)}; with {past} tokens in the cache and {num_columns} "
                f"new ones it must be ({num_rows}, {total})"
            )
        if position_ids is None:
            every = torch.ones(1, total, device=self.device) if attention_mask is None else attention_mask
            position_ids = (every.long().cumsum(-1) - 1).clamp_min(0)[:, past:]
        check_positions(self.config, position_ids, total)
        if inputs.num_images:
            self._remember(inputs, position_ids, cache, past)
        layout, last_layout = plan_cached(cache, past, num_columns, attention_mask, **self._plan_options()), None
        if 0 < kept < num_columns:
            last_layout = plan_cached(cache, total - kept, kept, attention_mask, **self._plan_options())
            last_layout.num_asked = kept
        embeds = inputs.embed(self.get_input_embeddings(), None).view(num_rows, num_columns, -1)
        return self.language_model.model(embeds, position_ids, layout, None, cache, last_layout)

    def _remember(self, inputs: Inputs, position_ids: Tensor, cache: Owl3Cache, past: int) -> None:
        """Put new images into the cache: nothing else of them is needed afterwards, nor held."""
        assert inputs.pixel_values is not None
        place = plan_slots(inputs.image_rows, inputs.image_starts, inputs.shape)
        rows, columns = (torch.from_numpy(x).to(self.device) for x in (inputs.image_rows, inputs.image_starts))
        position_I = position_ids.expand(inputs.shape)[rows, columns]
        slots = cache.add_images(place, past, inputs.image_index, position_I)
        tokens = self._image_tokens(inputs.pixel_values, inputs.image_index, None)
        self.language_model.model.remember(tokens, self._rotation(position_I), slots, inputs.shape[0], cache)

    def _plan_options(self) -> dict[str, Any]:
        return {
            "tokens_per_image": self.config.tokens_per_image,
            "image_offset": self.config.image_offset,
            "joint": self.config.fusion == "joint",
            "dtype": self.dtype,
            "device": self.device,
            "backend": self.config._attn_implementation,
        }
