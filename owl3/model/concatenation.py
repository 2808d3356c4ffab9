"""Concatenation, LLaVA's way: the baseline that hyper attention is compared with.

    given     a  b  <  |  …  c              an image whose placeholder begins at column 2; L = 3
    sequence  a  b  i  i  i  <  |  …  c

Image tokens stand in the text, right before their placeholder. From there on they are tokens like others: each has a
position of its own, keys and values in every layer, and a place in everybody's softmax. So packing, padding, the cache
and the loss need to know nothing of them; this module puts them in, and takes what belongs to the text out again.

Shape letters: B rows, S columns given, S' columns of the sequence, I images, L tokens per image, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from owl3.model.cache import Owl3Cache
from owl3.model.inputs import Inputs
from owl3.model.loss import IGNORED
from owl3.model.planning import token_of_image
from owl3.model.windows import Ints

if TYPE_CHECKING:
    from owl3.model.modeling import Owl3ForConditionalGeneration


@dataclass
class Columns:
    """Where everything stands in the sequence.

    `tokens` (B, S) and `images` (I,) hold columns, of tokens and of each image's first token; `count` is S'.
    """

    tokens: Ints
    images: Ints
    count: int


def plan_columns(shape: tuple[int, int], image_rows: Ints, image_starts: Ints, tokens_per_image: int) -> Columns:
    """Make room for images: L columns before the column where each begins; of several at one place in their order."""
    num_rows, num_columns = shape
    here = np.zeros(shape, dtype=np.int64)
    np.add.at(here, (image_rows, image_starts), 1)
    tokens = np.arange(num_columns) + tokens_per_image * here.cumsum(1)
    order = np.lexsort((image_starts, image_rows))
    in_order = image_rows[order]
    earlier = np.empty_like(order)
    earlier[order] = np.arange(len(order)) - np.searchsorted(in_order, in_order)
    most = int(np.bincount(image_rows, minlength=num_rows).max())
    return Columns(tokens, image_starts + tokens_per_image * earlier, num_columns + tokens_per_image * most)


@dataclass
class Sequence:
    """A batch whose images stand in its rows: arguments of a text model's forward pass."""

    inputs: Inputs
    segment_ids: Tensor | None
    attention_mask: Tensor | None
    labels: Tensor | None
    columns: Columns

    @property
    def arguments(self) -> tuple[Inputs, Tensor | None, Tensor | None, Tensor | None]:
        """Inputs, segment ids (without a cache), attention mask (with one) and labels."""
        return self.inputs, self.segment_ids, self.attention_mask, self.labels

    def text_of(self, hidden: Tensor) -> Tensor:
        """What belongs to the given tokens: (B, S', D) -> (B, S, D)."""
        rows = torch.arange(len(hidden), device=hidden.device)[:, None]
        return hidden[rows, torch.from_numpy(self.columns.tokens).to(hidden.device)]


def concatenate(  # noqa: PLR0917 - what `forward` was given
    model: Owl3ForConditionalGeneration,
    inputs: Inputs,
    segment_ids: Tensor | None,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    cache: Owl3Cache | None,
) -> Sequence:
    """Put a batch's images into its text. A batch in training without images keeps the visual weights in its graph.

    Args:
        model: Encodes pictures and embeds tokens.
        inputs: Tokens (B, S) and pictures.
        segment_ids: (B, S) or None, as `forward` takes it.
        attention_mask: (B, S), or with a cache (B, past + S), or None.
        labels: (B, S) or None; image tokens are never trained.
        cache: Told which of the new columns are padding; its mask of all columns so far is the sequence's.

    Raises:
        InputError: an image stands outside of its row, or on padding.
    """
    device, (num_rows, num_columns) = model.device, inputs.shape
    given = segment_ids if segment_ids is not None else attention_mask
    segments = torch.ones(inputs.shape, dtype=torch.long) if given is None else given[:, -num_columns:].long()
    on_host = segments.cpu().numpy()
    token_of_image(inputs.image_rows, inputs.image_starts, np.flatnonzero(on_host), inputs.shape)
    columns = plan_columns(inputs.shape, inputs.image_rows, inputs.image_starts, model.config.tokens_per_image)

    rows = torch.arange(num_rows, device=device)[:, None].expand(inputs.shape)
    token_place = (rows, torch.from_numpy(columns.tokens).to(device))
    embeds = inputs.embed(model.get_input_embeddings(), None).view(num_rows, num_columns, -1)
    longer = (num_rows, columns.count)
    sequence = embeds.new_zeros(*longer, embeds.shape[-1]).index_put(token_place, embeds)
    new_segments = torch.zeros(longer, dtype=torch.long, device=device).index_put(token_place, segments.to(device))
    if inputs.pixel_values is not None:
        features = model.encode_images(inputs.pixel_values)
        if inputs.image_index is not None:
            features = features[inputs.image_index.to(features.device)]
        image_place = _image_place(inputs, columns, features.shape[1], device)
        sequence = sequence.index_put(image_place, features)
        owners = torch.from_numpy(on_host[inputs.image_rows, inputs.image_starts]).to(device)
        new_segments = new_segments.index_put(image_place, owners[:, None].expand(features.shape[:2]))
    elif model.wants_anchor:
        sequence = sequence + 0 * model.anchor_images().unit.mean()
    if labels is not None:
        labels = labels.new_full(longer, IGNORED).index_put(
            tuple(place.to(labels.device) for place in token_place), labels
        )
    none = np.zeros(0, dtype=np.int64)
    return Sequence(
        inputs=Inputs(sequence, longer, None, none, none, None),
        segment_ids=new_segments if cache is None else None,
        attention_mask=None if cache is None else cache.add_columns(new_segments, num_columns),
        labels=labels,
        columns=columns,
    )


def _image_place(inputs: Inputs, columns: Columns, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Row and column of every image token, (I, L) each."""
    first = torch.from_numpy(columns.images).to(device)[:, None]
    rows = torch.from_numpy(inputs.image_rows).to(device)[:, None]
    place = first + torch.arange(length, device=device)
    return rows.expand(place.shape), place
