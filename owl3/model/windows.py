"""Which images a run of text can see at most: attention to images, a window at a time.

Images are kept in the order in which they stand, so what a run of text sees is a prefix of them:

    text      t t t t 1 t t 2 t t t t 3 t t t t t t t t       1 2 3: images
    windows   |- none -||------ 1 2 ---||----- 1 2 3 ----|    what no token of a window sees is never computed

Where all tokens of a window see the same images it needs no mask. With pictures spread over the text this halves the
work and the masks; what comes before the first picture costs nothing.

Shape letters: n samples (or rows), t tokens, m images at most, L tokens per image, H heads, K key-value heads, d head
size.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from owl3.model.attention import additive, attend

Ints = NDArray[np.int64]
MAX_WINDOWS = 16
MIN_TOKENS = {"cpu": 32, "cuda": 128}
"""Windows are cut as long as this, or a little shorter: a kernel takes so many queries at a time, and a call costs more
than shorter windows spare (measured on a CPU, only reckoned on a GPU)."""
NEVER = 1 << 30
"""A column that no token reaches: where the missing images of a shorter row stand."""


@dataclass
class Window:
    """Tokens start..end of each sample, the first `num_images` images, and who sees whom among them.

    `images` is an additive mask (n, 1, end - start, num_images), `text` one over the text up to `end` that shares the
    images' softmax (n or 1, 1, end - start, past + end). Without either all see all of the images or, in joint
    attention, there are none, and the text is causal.
    """

    start: int
    end: int
    num_images: int
    images: Tensor | None = None
    text: Tensor | None = None
    kept: Tensor | None = None

    def mask(self, tokens_per_image: int, blocks: "Sequence[Block]" = ()) -> Tensor | None:
        """Additive (n, 1, end - start, keys): the images' tokens, or with `blocks` images and text as those lie."""
        if self.kept is not None:
            return self.kept
        if self.images is None:
            return self.text
        images = self.images[..., None].expand(*self.images.shape, tokens_per_image)
        if self.text is None:
            return images.flatten(-2)
        text = self.text.expand(len(images), -1, -1, -1)
        parts = [part for block in blocks for part in (images[..., block.images, :].flatten(-2), text[..., block.text])]
        return torch.cat(parts, dim=-1)


@dataclass
class Block:
    """What a window sees that the one before it doesn't: some images, and text. Keys lie block after block."""

    images: slice
    text: slice


def cut(earliest: Ints, latest: Ints, num_tokens: int, device_type: str = "cpu") -> list[tuple[int, int, int, bool]]:
    """Cut `num_tokens` tokens into windows.

    Args:
        earliest: (m,) the first token of any sample that sees its j-th image; never falls with j.
        latest: (m,) a token from which on all samples see it.
        device_type: Where the windows are attended to.

    Returns:
        (start, end, how many images are seen at most, whether all tokens see all of them) of each window; at most
        `MAX_WINDOWS` + 2.
    """
    step = max(MIN_TOKENS.get(device_type, MIN_TOKENS["cuda"]), -(-2 * num_tokens // MAX_WINDOWS))
    arrivals = np.unique(np.append(earliest, latest.max()))
    inside = arrivals[(arrivals > 0) & (arrivals < num_tokens)]
    edges = [0, *inside[:1].tolist()]
    for arrival, following in pairwise([*inside[1:].tolist(), num_tokens]):
        if following - edges[-1] > step:  # any two windows in a row are longer than a step
            edges.append(arrival)
    windows = []
    for start, end in pairwise([*edges, num_tokens]):
        count = int(np.searchsorted(earliest, end))
        windows.append((start, end, count, bool((latest[:count] <= start).all())))
    return windows


def plan_windows(
    earliest: Ints,
    latest: Ints,
    visible: Tensor,
    tokens_per_image: int,
    dtype: torch.dtype,
    *,
    joint: bool,
    past: int = 0,
    text_of: Callable[[slice, bool], Tensor | None] | None = None,
) -> list[Window]:
    """Windows with their masks.

    Args:
        earliest: As in `cut`, like `latest`.
        visible: (n, t, m) bool: which token sees which image.
        tokens_per_image: L.
        dtype: Of the masks.
        joint: Text and images share a softmax, so that a token may see no image at all.
        past: How much text comes before the tokens.
        text_of: In joint attention of several tokens: the additive mask (n or 1, 1, tokens, past + keys) between some
            tokens and the text up to the last of them. It is told whether images come with it: without them, None
            says that it is plainly causal.
    """
    windows: list[Window] = []
    for start, end, count, is_open in cut(earliest, latest, visible.shape[1], visible.device.type):
        text = text_of(slice(start, end), count > 0) if text_of is not None else None
        window = Window(start, end, count, text=text)
        if count and (window.text is not None or not is_open):
            seen = visible[:, start:end, :count]
            window.images = additive(seen if joint else _visible_to_all(seen), dtype).unsqueeze(1)
        windows.append(window)
    if torch.is_grad_enabled():  # a backward pass keeps masks: once for all layers, not for each
        blocks = blocks_of(windows, past)
        for index, window in enumerate(windows):
            window.kept = window.mask(tokens_per_image, blocks[: index + 1])
    return windows


def blocks_of(windows: Sequence[Window], past: int) -> list[Block]:
    """A block per window, of text that follows `past` other tokens, which belong to the first."""
    blocks, images, text = [], 0, 0
    for window in windows:
        blocks.append(Block(slice(images, window.num_images), slice(text, past + window.end)))
        images, text = window.num_images, past + window.end
    return blocks


def look(
    q: Tensor, visual: tuple[Tensor, Tensor], windows: Sequence[Window], tokens_per_image: int, eager: bool
) -> Tensor:
    """Attention to images: (n, t, H, d), keys and values (n, m L, K, d) -> (n, t, H, d).

    0 in a window without images; anything finite for a token that sees none.
    """
    parts = []
    for window in windows:
        queries, seen = q[:, window.start : window.end], window.num_images * tokens_per_image
        if seen:
            k, v = (x[:, :seen] for x in visual)
            parts.append(attend(queries, k, v, window.mask(tokens_per_image), eager=eager))
        else:
            parts.append(torch.zeros_like(queries))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def look_both(  # noqa: PLR0917 - queries, text, images, and how
    q: Tensor,
    text: tuple[Tensor, Tensor],
    visual: tuple[Tensor, Tensor],
    windows: Sequence[Window],
    tokens_per_image: int,
    eager: bool,
) -> Tensor:
    """One softmax over images and text: as `look`, with `text` keys and values (n, past + t, K, d)."""
    past = text[0].shape[1] - q.shape[1]
    blocks = blocks_of(windows, past)
    k, v = (_lay_out(images, own, blocks, tokens_per_image) for images, own in zip(visual, text, strict=True))
    parts = []
    for index, window in enumerate(windows):
        num_keys = window.num_images * tokens_per_image + past + window.end
        mask = window.mask(tokens_per_image, blocks[: index + 1])
        queries = q[:, window.start : window.end]
        parts.append(attend(queries, k[:, :num_keys], v[:, :num_keys], mask, causal=mask is None, eager=eager))
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _lay_out(images: Tensor, text: Tensor, blocks: Sequence[Block], tokens_per_image: int) -> Tensor:
    """(n, m L, K, d) and (n, past + t, K, d) block after block, so that each window sees a prefix: no copy for each.

    Heads come first in memory.
    """
    images, text = images.transpose(1, 2), text.transpose(1, 2)
    tokens = (slice(block.images.start * tokens_per_image, block.images.stop * tokens_per_image) for block in blocks)
    parts = [
        part
        for seen, block in zip(tokens, blocks, strict=True)
        for part in (images[:, :, seen], text[:, :, block.text])
    ]
    return torch.cat(parts, dim=2).transpose(1, 2)


def _visible_to_all(visible: Tensor) -> Tensor:
    """Let a token that sees no image see all: a row of -inf alone would be NaN. What it reads is not used."""
    return visible | ~visible.any(-1, keepdim=True)
