"""From a batch's segment ids and image places to the plan its layers follow (on the host, once per forward).

Everything here is whole-array arithmetic; the only loops are over groups of samples, of which there are few.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from owl3.errors import InputError
from owl3.model.attention import additive, causal_mask
from owl3.model.cache import Owl3Cache
from owl3.model.layout import MAX_GROUPS, CachedLayout, Group, StreamLayout
from owl3.model.windows import NEVER, Ints, Window, plan_windows


def plan_stream(
    segment_ids: Ints,
    image_rows: Ints,
    image_starts: Ints,
    *,
    tokens_per_image: int,
    image_offset: int,
    joint: bool,
    dtype: torch.dtype,
    device: torch.device,
    backend: str = "sdpa",
) -> StreamLayout:
    """Plan a batch without cache.

    Args:
        segment_ids: (B, S), 0 = padding; each sample one run of columns.
        image_rows: (I,) row of each image's placeholder.
        image_starts: (I,) column of its first token.
        tokens_per_image: L.
        image_offset: How many tokens after its first placeholder token an image is first seen.
        joint: Make masks over images and text together.
        dtype: Of the masks.
        device: Where the plan's tensors go.
        backend: One of `attention.BACKENDS`.

    Raises:
        InputError: when a sample is not one run, or an image stands outside of its row or on padding.
    """
    num_rows, num_columns = segment_ids.shape
    real = np.flatnonzero(segment_ids)  # flat columns of the T tokens, row by row
    first, lengths = _runs(segment_ids, real)
    sample_of_token = np.repeat(np.arange(len(lengths)), lengths)

    place = token_of_image(image_rows, image_starts, real, (num_rows, num_columns))
    image_sample = sample_of_token[place]
    image_place = place - first[image_sample]  # of its first placeholder token, inside its sample
    num_images = np.bincount(image_sample, minlength=len(lengths))

    keys = _group_keys(lengths, num_images)
    order = np.lexsort((lengths, keys))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    lengths, num_images, keys = lengths[order], num_images[order], keys[order]
    token_order = np.repeat(first[order], lengths) + _ragged_arange(lengths)
    image_order = np.lexsort((image_place, rank[image_sample]))
    image_place = image_place[image_order]
    image_token = (np.cumsum(lengths) - lengths)[rank[image_sample][image_order]] + image_place

    def tensor(array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(device, non_blocking=True)

    plan_masks = None if backend == "flex_attention" else partial(_plan_windows, tokens_per_image, dtype, joint)
    groups: list[Group] = []
    sees: list[NDArray[np.bool_]] = []
    image = 0
    for start, end in pairwise(np.flatnonzero(np.diff(keys, prepend=-1, append=-1))):
        counts = num_images[start:end]
        own_places = image_place[image : image + counts.sum()]
        group, seen = _group(lengths[start:end], counts, own_places, image_offset, plan_masks, tensor)
        groups.append(group)
        sees.append(seen)
        image += group.stream_images

    stands_as_is = len(real) == segment_ids.size and bool((np.diff(token_order) == 1).all())
    has_image_order = bool((np.diff(image_order) != 1).any())
    layout = StreamLayout(
        groups=groups,
        token_index=None if stands_as_is else tensor(real[token_order]),
        image_order=tensor(image_order) if has_image_order else None,
        positions=tensor(_ragged_arange(lengths)).unsqueeze(0),
        image_tokens=tensor(image_token),
        image_places=tensor(image_place),
        last_of_sample=tensor(np.cumsum(lengths) - 1),
        sees_image=tensor(np.concatenate(sees)).to(dtype).view(1, -1, 1, 1) if len(place) else None,
        eager=backend == "eager",
    )
    if backend in ("flash_attention_2", "flex_attention"):  # their imports take a second
        from owl3.model.kernels import FlashLayout, FlexLayout
    if backend == "flash_attention_2":
        return FlashLayout.of(layout, lengths)
    if backend == "flex_attention":
        samples = np.repeat(np.arange(len(lengths)), lengths)
        image_samples = np.repeat(np.arange(len(lengths)), num_images)
        return FlexLayout.of(layout, tensor(samples), tensor(image_samples), tokens_per_image, image_offset)
    return layout


def plan_cached(
    cache: Owl3Cache,
    past: int,
    num_new: int,
    attention_mask: Tensor | None,
    *,
    tokens_per_image: int,
    image_offset: int,
    joint: bool,
    dtype: torch.dtype,
    device: torch.device,
    backend: str = "sdpa",
) -> CachedLayout:
    """Plan `num_new` tokens per row, of which the past is in `cache` (their images, if any, are already entered).

    Args:
        past: How many columns come before them.
        attention_mask: (B, past + num_new), 0 = padding; None when there is none.
        backend: One of `attention.BACKENDS`; all but `eager` are carried out by sdpa here.
    """
    eager = backend == "eager"
    column = torch.arange(past, past + num_new, device=device)
    text_mask = None
    if attention_mask is not None and not bool(attention_mask.all()):
        key = torch.arange(past + num_new, device=device)
        allowed = (key <= column[:, None]) & attention_mask.bool()[:, None]
        allowed |= key == column[:, None]  # padding sees itself: a row of -inf alone would be NaN
        text_mask = additive(allowed, dtype).unsqueeze(1)
    elif past and num_new > 1:
        text_mask = causal_mask(num_new, past + num_new, dtype, device)
    starts = cache.image_starts
    if starts is None:
        return CachedLayout(text_mask, [], None, tokens_per_image, eager)
    earliest, latest = (bound + image_offset - past for bound in (cache.earliest, cache.latest))
    if num_new == 1 and latest.max() <= 0:  # as in every step of decoding: there, each operation counts
        sees_image = torch.ones(1, 1, 1, 1, dtype=dtype, device=device)
        return CachedLayout(text_mask, [Window(0, 1, len(latest))], sees_image, tokens_per_image, eager)
    visible = column[:, None] >= starts[:, None] + image_offset  # (B, S, slots)

    def text_of(tokens: slice, with_images: bool) -> Tensor | None:
        if text_mask is not None:
            return text_mask[:, :, tokens, : past + tokens.stop]
        # There is no past.
        return causal_mask(tokens.stop - tokens.start, tokens.stop, dtype, device) if with_images else None

    windows = plan_windows(
        earliest,
        latest,
        visible,
        tokens_per_image,
        dtype,
        joint=joint,
        past=past,
        text_of=text_of if joint and num_new > 1 else None,
    )
    return CachedLayout(text_mask, windows, visible.any(-1).to(dtype)[..., None, None], tokens_per_image, eager)


def plan_slots(image_rows: Ints, image_starts: Ints, shape: tuple[int, int]) -> tuple[Ints, Ints]:
    """Sort images into their rows, for a cache.

    Returns:
        (B, slots) index of the image in each slot, -1 where a row has fewer, and (B, slots) its column or `NEVER`.
    """
    num_rows, num_columns = shape
    token_of_image(image_rows, image_starts, np.arange(num_rows * num_columns), shape)
    order = np.lexsort((image_starts, image_rows))
    counts = np.bincount(image_rows, minlength=num_rows)
    filled = np.arange(counts.max()) < counts[:, None]
    slots, starts = np.full(filled.shape, -1), np.full(filled.shape, NEVER)
    slots[filled], starts[filled] = order, image_starts[order]
    return slots, starts


def _runs(segment_ids: Ints, real: Ints) -> tuple[Ints, Ints]:
    """Where in the T tokens each sample begins, and its length."""
    if not len(real):
        raise InputError("segment_ids: the batch holds no token, only padding")
    rows, ids = real // segment_ids.shape[1], segment_ids.ravel()[real]
    names = rows * (int(ids.max()) + 1) + ids
    first = np.flatnonzero(np.diff(names, prepend=-1))
    lengths = np.diff(first, append=len(real))
    torn = real[first + lengths - 1] - real[first] != lengths - 1
    if torn.any() or len(np.unique(names[first])) != len(first):
        raise InputError("segment_ids: a sample must be one run of columns in one row, one of them is torn apart")
    return first, lengths


def token_of_image(image_rows: Ints, image_starts: Ints, real: Ints, shape: tuple[int, int]) -> Ints:
    """The index among the T tokens of each image's first placeholder token."""
    num_rows, num_columns = shape
    inside = (image_rows >= 0) & (image_rows < num_rows) & (image_starts >= 0) & (image_starts < num_columns)
    token_at = np.full(num_rows * num_columns, -1)
    token_at[real] = np.arange(len(real))
    place = token_at[np.where(inside, image_rows * num_columns + image_starts, 0)]
    bad = np.flatnonzero(~inside | (place < 0))
    if len(bad):
        image = int(bad[0])
        raise InputError(
            f"image {image}: row {image_rows[image]}, column {image_starts[image]} is not a token of the "
            f"{num_rows} x {num_columns} batch (outside of it, or padding)"
        )
    return place


def _group_keys(lengths: Ints, num_images: Ints) -> Ints:
    """A number per sample, equal for samples of like size; at most `MAX_GROUPS` different ones.

    Sizes are compared on a log scale that is made coarser until there are few enough.
    """
    for steps_per_doubling in (4, 2, 1, 0.5, 0.25):
        size = np.ceil(np.log2(lengths) * steps_per_doubling).astype(np.int64)
        images = np.ceil(np.log2(np.maximum(num_images, 0.5)) * min(steps_per_doubling, 2)).astype(np.int64) + 64
        names, keys = np.unique(images * 4096 + size, return_inverse=True)
        if len(names) <= MAX_GROUPS:
            return np.asarray(keys, dtype=np.int64)
    return (num_images > 0).astype(np.int64)


def _ragged_arange(lengths: Ints) -> Ints:
    """0..n-1 for each length n, one after the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)


def _group(  # noqa: PLR0917
    lengths: Ints,
    num_images: Ints,
    image_places: Ints,
    image_offset: int,
    plan_masks: Callable[[Ints, Ints, Tensor], list[Window]] | None,
    tensor: Callable[[NDArray[Any]], Tensor],
) -> tuple[Group, NDArray[np.bool_]]:
    """Samples that attend together, and which of their tokens see an image (in stream order).

    Args:
        lengths: Tokens of each sample.
        num_images: Images of each sample; `image_places` are all their places, sample by sample.
        plan_masks: Plans windows from when images are seen, by any and by all samples, and (n, t, m) visibility; None
            leaves them out.
        tensor: Brings an array to the device.
    """
    tokens, images = int(lengths.max()), int(num_images.max())
    group = Group(len(lengths), tokens, images, int(lengths.sum()), int(num_images.sum()))
    is_token = np.arange(tokens) < lengths[:, None]
    is_image = np.arange(images) < num_images[:, None]
    if not is_token.all():
        group.pad, group.unpad = tensor(_padded_index(lengths, tokens)), tensor(np.flatnonzero(is_token))
        group.is_real = tensor(is_token.ravel())
    if not is_image.all():
        group.image_pad, group.image_unpad = tensor(_padded_index(num_images, images)), tensor(np.flatnonzero(is_image))
    places = np.full(is_image.shape, NEVER)
    places[is_image] = image_places
    visible = np.arange(tokens)[:, None] >= places[:, None] + image_offset  # (n, t, m)
    if images and plan_masks is not None:
        group.windows = plan_masks(places.min(0) + image_offset, places.max(0) + image_offset, tensor(visible))
    return group, np.asarray(visible.any(-1))[is_token]


def _padded_index(lengths: Ints, longest: int) -> Ints:
    """Index that lays runs of these lengths out as rows of `longest`; a row's padding repeats its last element.

    An empty run's padding is element 0 of all: whatever stands there is masked.
    """
    starts = np.cumsum(lengths) - lengths
    last = np.maximum(lengths - 1, 0)
    index = np.minimum(np.arange(longest), last[:, None]) + starts[:, None]
    return np.where(lengths[:, None] > 0, index, 0).ravel()


def _plan_windows(  # noqa: PLR0917 - the first three are the batch's
    tokens_per_image: int, dtype: torch.dtype, joint: bool, earliest: Ints, latest: Ints, visible: Tensor
) -> list[Window]:
    """The windows of a group."""

    def text_of(tokens: slice, with_images: bool) -> Tensor | None:
        return causal_mask(tokens.stop - tokens.start, tokens.stop, dtype, visible.device) if with_images else None

    together = text_of if joint else None
    return plan_windows(earliest, latest, visible, tokens_per_image, dtype, joint=joint, text_of=together)
