"""What a forward pass was given, checked: contradictions are named before they become a wrong answer."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from owl3.errors import InputError
from owl3.model.cache import Owl3Cache
from owl3.model.config import Owl3Config
from owl3.model.windows import Ints


@dataclass
class Inputs:
    """Tokens and images of a batch of `shape` (B, S).

    `tokens` are ids (B, S) or embeddings (B, S, D); image places are on the host, where the batch is planned.
    """

    tokens: Tensor
    shape: tuple[int, int]
    pixel_values: Tensor | None
    image_rows: Ints
    image_starts: Ints
    image_index: Tensor | None

    @property
    def num_images(self) -> int:
        """How many images are shown; a picture shown to two rows counts twice."""
        return len(self.image_rows)

    def embed(self, embedding: nn.Module, token_index: Tensor | None) -> Tensor:
        """Embeddings (1, T, D) of these tokens of the flattened batch (None = all of them)."""
        tokens = self.tokens.flatten(0, 1)
        if token_index is not None:
            tokens = tokens[token_index]
        return (tokens if tokens.is_floating_point() else embedding(tokens)).unsqueeze(0)


def check_inputs(
    config: Owl3Config,
    *,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    pixel_values: Tensor | None,
    image_rows: Tensor | None,
    image_starts: Tensor | None,
    image_index: Tensor | None,
) -> Inputs:
    """Check a batch against itself and the configuration.

    Raises:
        InputError: naming the argument that is missing, or does not fit the others.
    """
    tokens = input_ids if inputs_embeds is None else inputs_embeds
    if tokens is None or (input_ids is not None and inputs_embeds is not None):
        raise InputError("give either input_ids or inputs_embeds")
    shape = (tokens.shape[0], tokens.shape[1])
    places = {"image_rows": image_rows, "image_starts": image_starts}
    none = np.zeros(0, dtype=np.int64)
    without_images = Inputs(tokens, shape, None, none, none, None)
    if pixel_values is None or len(pixel_values) == 0:
        for name, value in places.items():
            if value is not None and len(value):
                raise InputError(f"{name} places {len(value)} images, but there are no pixel_values")
        return without_images
    for name, value in places.items():
        if value is None:
            raise InputError(f"pixel_values holds {len(pixel_values)} images, but {name} is missing")
    side = config.vision_config.image_size
    if pixel_values.dim() != 4 or tuple(pixel_values.shape[1:]) != (config.vision_config.num_channels, side, side):
        raise InputError(
            f"pixel_values is {tuple(pixel_values.shape)}; this model reads (images, 3, {side}, {side}): "
            "use the processor saved beside it"
        )
    shown = len(pixel_values) if image_index is None else len(image_index)
    for name, value in places.items():
        if len(value) != shown:  # type: ignore[arg-type]
            raise InputError(f"{name} places {len(value)} images, pixel_values holds {shown}")  # type: ignore[arg-type]
    if not shown:
        return without_images
    return Inputs(tokens, shape, pixel_values, _host(image_rows), _host(image_starts), image_index)


def check_cache(cache: object | None, segment_ids: Tensor | None, labels: Tensor | None) -> None:
    """Only the model's own cache can hold images; with it, rows are one sample each and there is no loss."""
    if cache is None:
        return
    if segment_ids is not None or labels is not None:
        raise InputError("a cache holds one sample per row and gives no loss: leave out segment_ids and labels")
    if not isinstance(cache, Owl3Cache):
        raise InputError(
            f"past_key_values is a {type(cache).__name__}, which can't hold images: pass an Owl3Cache, or none "
            "(generate makes one)"
        )


def check_positions(config: Owl3Config, positions: Tensor, longest_possible: int) -> None:
    """No token may stand beyond what the rotary embedding was made for.

    Args:
        positions: Of all real tokens.
        longest_possible: A bound on them, if they count from 0. Only on a CPU, or when the bound is too high, is the
            tensor itself looked at: that would make a GPU wait.
    """
    limit = config.text_config.max_position_embeddings
    if positions.device.type != "cpu" and longest_possible <= limit:
        return
    last = int(positions.max())
    if last >= limit:
        raise InputError(
            f"a token stands at position {last}, but max_position_embeddings is {limit}: "
            "shorten the text, or raise it in the configuration"
        )


def _host(x: Tensor | None) -> Ints:
    assert x is not None
    return torch.as_tensor(x).cpu().numpy().astype(np.int64, copy=False)
