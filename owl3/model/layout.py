"""Who attends to whom: the batch is planned once, and every layer follows the plan.

Shape letters: B rows, S columns, T tokens that are not padding, I images, L tokens per image, H heads, K key-value
heads, d head size.

Without a cache (training, scoring) a batch becomes one *stream* of its T real tokens, (1, T, …), sorted so that
samples of like size lie together. Linear layers run over the stream, so padding costs nothing. Attention runs over
*groups* of like-sized samples:

    rows      aaaaaabb.  cccccddd.            . padding
    stream    bbddd ccccc aaaaaa              sorted by size
    groups    [bb, ddd -> 2 x 3] [ccccc -> 1 x 5] [aaaaaa -> 1 x 6]

Inside a group samples are padded to the longest, which in causal attention needs no mask: padding comes last, and
what attends to it is thrown away. So packed samples never share a softmax, and a packed row costs the sum of the
squares of its samples' lengths, not the square of the sum. The number of groups is small however many samples there
are (at most `MAX_GROUPS`).

With a cache (generation) rows stay rows, (B, S, …), with the usual masks.
"""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Function

from owl3.model.attention import attend, attend_two
from owl3.model.windows import Window, look, look_both

VisualKV = tuple[Tensor, Tensor]
"""Keys, rotated, and values of all images: two tensors (I, L, K, d) in the layout's image order."""

MAX_GROUPS = 8


class Layout(Protocol):
    """What a layer asks of a plan. Queries, keys and values are (B, S, heads, d), or (1, T, heads, d) in a stream."""

    sees_image: Tensor | None
    """Broadcastable to (B, S, 1, 1): 1 where a token sees at least one image. None in a batch without images."""

    num_asked: int | None
    """Only the last so many columns query, and have an output; S is then this number. None: all do."""

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each sample."""
        ...

    def attend_images(self, q: Tensor, visual: VisualKV) -> Tensor:
        """Attention to the images a token sees; anything finite where `sees_image` is 0."""
        ...

    def attend_both(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV) -> Tensor:
        """One softmax over the images a token sees and the text up to itself."""
        ...


@dataclass
class Group:
    """Samples of like size: n of them, at most t tokens and m images each.

    `pad` and `unpad` lead from the group's part of the stream to (n x t) and back; None when all have t tokens.
    `image_pad` does the same for images, to (n x m).
    """

    num_samples: int
    num_tokens: int
    num_images: int
    stream_tokens: int
    stream_images: int
    pad: Tensor | None = None
    unpad: Tensor | None = None
    is_real: Tensor | None = None
    image_pad: Tensor | None = None
    image_unpad: Tensor | None = None
    windows: list[Window] = field(default_factory=list)

    def gather(self, x: Tensor) -> Tensor:
        """(stream_tokens, …) -> (n, t, …)"""
        if self.pad is not None:
            x = Regroup.apply(x, self.pad, self.unpad, None)
        return x.unflatten(0, (self.num_samples, self.num_tokens))

    def scatter(self, x: Tensor) -> Tensor:
        """(n, t, …) -> (stream_tokens, …)"""
        x = x.flatten(0, 1)
        return x if self.unpad is None else Regroup.apply(x, self.unpad, self.pad, self.is_real)

    def gather_images(self, x: Tensor) -> Tensor:
        """(stream_images, L, …) -> (n, m L, …)"""
        if self.image_pad is not None:
            x = Regroup.apply(x, self.image_pad, self.image_unpad, None)
        return x.unflatten(0, (self.num_samples, self.num_images)).flatten(1, 2)


class Regroup(Function):
    """Take rows by index, knowing the way back.

    The gradient of a gather is a scatter, which is slow. Here it is another gather: an index takes each real row
    once, and what it takes besides (padding) has no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, back: Tensor, is_real: Tensor | None) -> Tensor:
        """x[index]. `back[i]` is where row i of x went; `is_real` marks the rows of x that went anywhere."""
        ctx.save_for_backward(back, is_real)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        """grad[back], zero where x's row was padding."""
        back, is_real = ctx.saved_tensors
        grad = grad.index_select(0, back)
        if is_real is not None:
            grad = grad * is_real.view(-1, *[1] * (grad.dim() - 1))
        return grad, None, None, None


@dataclass
class StreamLayout:
    """The plan of a batch without cache; see the head of this file.

    `token_index` (T,) holds the column of each stream token in the flattened batch (row x S + column), None when the
    stream is the batch as it stands; `image_order` (I,) likewise for images. `positions` (1, T) count from 0 in every
    sample. `image_tokens` (I,) are the stream tokens at which the images' placeholders begin, `image_places` their
    positions. `last_of_sample` (samples,) are the stream tokens that end a sample.
    """

    groups: list[Group]
    token_index: Tensor | None
    image_order: Tensor | None
    positions: Tensor
    image_tokens: Tensor
    image_places: Tensor
    last_of_sample: Tensor
    sees_image: Tensor | None
    eager: bool = False
    num_asked: int | None = None

    def to_batch(self, stream: Tensor, shape: tuple[int, int]) -> Tensor:
        """(1, T, D) back to (B, S, D), zero on padding."""
        flat = stream.squeeze(0)
        if self.token_index is not None:
            flat = flat.new_zeros(shape[0] * shape[1], flat.shape[-1]).index_copy(0, self.token_index, flat)
        return flat.view(*shape, -1)

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each sample."""
        parts = zip(self.groups, self._split(q), self._split(k), self._split(v), strict=True)
        return self._join(
            [
                group.scatter(
                    attend(group.gather(q), group.gather(k), group.gather(v), None, causal=True, eager=self.eager)
                )
                for group, q, k, v in parts
            ]
        )

    def attend_images(self, q: Tensor, visual: VisualKV) -> Tensor:
        """Attention to the sample's images; zero in groups without any."""
        out = []
        for group, q_g, k_i, v_i in zip(self.groups, self._split(q), *map(self._split_images, visual), strict=True):
            if group.num_images == 0:
                out.append(torch.zeros_like(q_g))
                continue
            images = group.gather_images(k_i), group.gather_images(v_i)
            out.append(group.scatter(look(group.gather(q_g), images, group.windows, k_i.shape[1], self.eager)))
        return self._join(out)

    def attend_both(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV) -> Tensor:
        """One softmax over [the sample's images, its text]."""
        out = []
        texts = map(self._split, (q, k, v))
        for group, q_g, k_g, v_g, k_i, v_i in zip(self.groups, *texts, *map(self._split_images, visual), strict=True):
            queries, text = group.gather(q_g), (group.gather(k_g), group.gather(v_g))
            if group.num_images:
                images = group.gather_images(k_i), group.gather_images(v_i)
                attended = look_both(queries, text, images, group.windows, k_i.shape[1], self.eager)
            else:
                attended = attend(queries, *text, None, causal=True, eager=self.eager)
            out.append(group.scatter(attended))
        return self._join(out)

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """(1, T, …) -> each group's part of the stream."""
        return x.squeeze(0).split([group.stream_tokens for group in self.groups])

    def _split_images(self, x: Tensor) -> tuple[Tensor, ...]:
        return x.split([group.stream_images for group in self.groups])

    @staticmethod
    def _join(parts: list[Tensor]) -> Tensor:
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).unsqueeze(0)


@dataclass
class CachedLayout:
    """The plan of a batch whose past lies in a cache: rows with masks.

    `text_mask` (B or 1, 1, S, keys) None: plainly causal (or a single new token, which sees all).
    """

    text_mask: Tensor | None
    windows: list[Window]
    sees_image: Tensor | None
    tokens_per_image: int
    eager: bool = False
    num_asked: int | None = None

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each row, past included."""
        return attend(q, k, v, self.text_mask, causal=self.text_mask is None and q.shape[1] > 1, eager=self.eager)

    def attend_images(self, q: Tensor, visual: VisualKV) -> Tensor:
        """Attention to the row's images. Here `visual` is per row: (B, slots x L, K, d)."""
        return look(q, visual, self.windows, self.tokens_per_image, self.eager)

    def attend_both(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV) -> Tensor:
        """One softmax over [the row's images, its text]."""
        if q.shape[1] > 1:
            return look_both(q, (k, v), visual, self.windows, self.tokens_per_image, self.eager)
        (window,) = self.windows
        seen_k, seen_v = (x[:, : window.num_images * self.tokens_per_image] for x in visual)
        return attend_two(q, (seen_k, seen_v, window.mask(self.tokens_per_image)), (k, v, self.text_mask))
