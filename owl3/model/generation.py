"""What `generate` must know about images: they are read once, cached, and shared by the beams of a prompt."""

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from owl3.errors import InputError
from owl3.model.cache import Owl3Cache
from owl3.model.config import Owl3Config


class Owl3GenerationMixin(GenerationMixin):  # type: ignore[misc]
    """transformers' generation, with a cache that holds images.

    (Only a class whose base is *named* …GenerationMixin gets a generation config from transformers.)
    """

    config: Owl3Config

    def prepare_inputs_for_generation(
        self, input_ids: Tensor, *, is_first_iteration: bool | None = False, **kwargs: Any
    ) -> dict[str, Any]:
        """Images are read once: later steps find them in the cache."""
        inputs = super().prepare_inputs_for_generation(input_ids, is_first_iteration=is_first_iteration, **kwargs)
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in ("pixel_values", "image_rows", "image_starts", "image_index"):
                inputs.pop(name, None)
        return inputs

    def _prepare_cache_for_generation(
        self, generation_config: Any, model_kwargs: dict[str, Any], *args: Any, **kwargs: Any
    ) -> None:
        """`generate` asks for a cache here; it gets one that holds images."""
        asked = generation_config.cache_implementation
        if model_kwargs.get("past_key_values") is None and generation_config.use_cache:
            if asked not in (None, "dynamic", "offloaded"):
                raise InputError(f"cache_implementation={asked!r} can't hold images; one of dynamic, offloaded")
            model_kwargs["past_key_values"] = Owl3Cache(self.config, offloading=asked == "offloaded")
            return
        super()._prepare_cache_for_generation(generation_config, model_kwargs, *args, **kwargs)

    def _expand_inputs_for_generation(
        self,
        expand_size: int = 1,
        is_encoder_decoder: bool = False,
        input_ids: Tensor | None = None,
        **model_kwargs: Any,
    ) -> tuple[Tensor | None, dict[str, Any]]:
        """Beams of a prompt are rows of their own, and show the same pictures: those are not copied."""
        pixel_values = model_kwargs.pop("pixel_values", None)
        places = [model_kwargs.pop(name, None) for name in ("image_rows", "image_starts", "image_index")]
        input_ids, model_kwargs = super()._expand_inputs_for_generation(
            expand_size=expand_size, is_encoder_decoder=is_encoder_decoder, input_ids=input_ids, **model_kwargs
        )
        if pixel_values is None:
            return input_ids, model_kwargs
        rows, starts, index = places
        if expand_size > 1:
            index = torch.arange(len(pixel_values)) if index is None else index
            beam = torch.arange(expand_size, device=rows.device)
            rows = (rows[:, None] * expand_size + beam).flatten()
            starts, index = (x.repeat_interleave(expand_size) for x in (starts, index))
        images = {"pixel_values": pixel_values, "image_rows": rows, "image_starts": starts, "image_index": index}
        return input_ids, {**model_kwargs, **images}
