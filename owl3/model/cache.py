"""Keys and values of the past, of text and of images.

    layer  0       1        2 …
    text   K V     K V      K V      grow by a token a step
    image  -       K V      -        hyper layers only; written when images arrive, then only read

The released code projects every image again, in every hyper layer, for every new token. Here they are projected once.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

from owl3.model.config import Owl3Config
from owl3.model.layout import VisualKV
from owl3.model.windows import NEVER, Ints


class HyperLayer(DynamicLayer):  # type: ignore[misc]
    """A layer's text keys and values and, beside them, those of its images: two tensors (B, K, slots x L, d).

    Heads come first in memory, as for text: a decoding step then reads one head after the other, in one go each.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.visual: VisualKV | None = None

    def add_visual(self, visual: VisualKV) -> None:
        """Append images: new ones stand after those already there."""
        if self.visual is not None:
            visual = torch.cat((self.visual[0], visual[0]), dim=2), torch.cat((self.visual[1], visual[1]), dim=2)
        self.visual = visual

    def _map_visual(self, function: Any) -> None:
        if self.visual is not None:
            self.visual = function(self.visual[0]), function(self.visual[1])

    def offload(self) -> None:
        """Move to host memory."""
        super().offload()
        self._map_visual(lambda x: x.to("cpu", non_blocking=True))

    def prefetch(self) -> None:
        """Move back to the device, ahead of use."""
        super().prefetch()
        if self.is_initialized:
            self._map_visual(lambda x: x.to(self.device, non_blocking=True))

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.visual = None

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        self._map_visual(lambda x: x.repeat_interleave(repeats, dim=0))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows."""
        super().batch_select_indices(indices)
        self._map_visual(lambda x: x[indices.to(x.device)])


class Owl3Cache(Cache):  # type: ignore[misc]
    """The cache that `generate` makes for an Owl3 model.

    Attributes:
        image_starts: (B, slots) column of each image's placeholder; a row with fewer images ends in slots at `NEVER`.
        owner: (B,) which prompt a row continues. Beams of one prompt have the same images, so reordering among them
            moves text only.
        earliest: (slots,) the first column at which any row has this image (or one before it).
        latest: (slots,) the last column at which any row has it; `NEVER` where a row has none. Both lie on the host.
        columns_filled: (B, columns) 0 where a row has padding; None unless image tokens stand in the text
            (`owl3.model.concatenation`), where rows differ in length by their images.
    """

    def __init__(self, config: Owl3Config, offloading: bool = False) -> None:
        hyper = set(config.hyper_layer_indices)
        layers = [HyperLayer() if i in hyper else DynamicLayer() for i in range(config.text_config.num_hidden_layers)]
        super().__init__(layers=layers, offloading=offloading, offload_only_non_sliding=False)
        self.image_starts: Tensor | None = None
        self.owner: Tensor | None = None
        self.earliest = self.latest = np.zeros(0, dtype=np.int64)
        self.columns_filled: Tensor | None = None
        self._image_columns = 0

    @property
    def num_columns(self) -> int:
        """Keys of a row so far, padding and image tokens that stand in the text included."""
        return int(super().get_seq_length())

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens of text so far, padding included: what `generate` counts."""
        return int(super().get_seq_length(layer_idx)) - self._image_columns

    def add_columns(self, filled: Tensor, num_tokens: int) -> Tensor:
        """Note new columns, of which `num_tokens` are text: (B, new) nonzero where filled -> (B, all) so far."""
        filled = (filled != 0).long()
        self._image_columns += filled.shape[1] - num_tokens
        past = self.columns_filled
        self.columns_filled = filled if past is None else torch.cat((past.to(filled.device), filled), dim=1)
        return self.columns_filled

    def add_images(
        self, place: tuple[Ints, Ints], past: int, image_index: Tensor | None, position_I: Tensor
    ) -> Tensor | None:
        """Make room for images that arrive.

        Args:
            place: As `plan_slots` gives it: (B, slots) which image, -1 for none, and at which column after `past`.
            past: How many columns are in the cache already.
            image_index: Which picture each image shows, when rows share pictures.
            position_I: Rotary position of each image.

        Returns:
            (B, slots) the image of each slot; empty slots repeat image 0, and are never seen. None when the images
            fill all slots, row by row, in their own order.
        """
        slots, starts = place
        filled = slots >= 0
        starts = np.where(filled, starts + past, NEVER)
        self.earliest = np.append(self.earliest, starts.min(0))
        self.latest = np.append(self.latest, starts.max(0))
        device = position_I.device
        new = torch.from_numpy(starts).to(device)
        self.image_starts = new if self.image_starts is None else torch.cat((self.image_starts, new), dim=1)
        slots_t = torch.from_numpy(np.maximum(slots, 0)).to(device)
        if self.owner is None and image_index is not None:
            shown = torch.stack((image_index.to(device)[slots_t], new, position_I[slots_t]), dim=-1)
            self.owner = torch.unique(shown.flatten(1), dim=0, return_inverse=True)[1]
        elif self.owner is None:
            self.owner = torch.arange(len(slots), device=device)
        return None if bool((np.diff(slots.ravel(), prepend=-1) == 1).all()) else slots_t

    def home(self, device: torch.device) -> torch.device:
        """Where keys and values of images are kept that were made on a device."""
        return torch.device("cpu") if self.offloading else device

    def add_visual(self, layer: int, visual: VisualKV) -> None:
        """Keep a layer's keys and values, (B, K, slots x L, d), of images that have just arrived."""
        self.layers[layer].add_visual(visual)

    def visual(self, layer: int, device: torch.device) -> VisualKV | None:
        """A layer's keys and values of all images so far, (B, slots x L, K, d), on the device they are needed on."""
        kept = self.layers[layer].visual
        return None if kept is None else (kept[0].to(device).transpose(1, 2), kept[1].to(device).transpose(1, 2))

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self.image_starts = self.owner = self.columns_filled = None
        self.earliest = self.latest = np.zeros(0, dtype=np.int64)
        self._image_columns = 0

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Follow beam search. Images move only if a row takes over a beam of another prompt."""
        super().reorder_cache(beam_idx)
        if self.columns_filled is not None:
            self.columns_filled = self.columns_filled[beam_idx]
        if self.owner is not None and not torch.equal(self.owner[beam_idx], self.owner):
            self._select_images(beam_idx)
            for layer in self.layers:
                if isinstance(layer, HyperLayer):
                    layer._map_visual(lambda x: x.index_select(0, beam_idx.to(x.device)))

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each row `repeats` times."""
        super().batch_repeat_interleave(repeats)
        if self.columns_filled is not None:
            self.columns_filled = self.columns_filled.repeat_interleave(repeats, dim=0)
        if self.image_starts is not None:
            self.image_starts = self.image_starts.repeat_interleave(repeats, dim=0)
        if self.owner is not None:
            self.owner = self.owner.repeat_interleave(repeats, dim=0)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Only these rows."""
        super().batch_select_indices(indices)
        self._select_images(indices)
        if self.columns_filled is not None:
            self.columns_filled = self.columns_filled[indices]

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the newest tokens (a negative number of them). An image whose placeholder goes is never seen."""
        super().crop(tokens_to_remove)
        if self.columns_filled is not None:
            self.columns_filled = self.columns_filled[:, : self.num_columns]
        if self.image_starts is not None and tokens_to_remove:
            gone = self.image_starts >= self.get_seq_length()
            self.image_starts = self.image_starts.masked_fill(gone, NEVER)
            self.earliest = np.minimum(self.earliest, self.get_seq_length())
            self.latest[self.latest >= self.get_seq_length()] = NEVER

    def _select_images(self, indices: Tensor) -> None:
        if self.image_starts is not None:
            self.image_starts = self.image_starts[indices]
        if self.owner is not None:
            self.owner = self.owner[indices]
