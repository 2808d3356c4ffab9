"""Streams on other kernels: FlexAttention and FlashAttention.

Both read the stream as it is, without groups. They pay on a GPU: the stream's masks are described, never written out.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from owl3.model.layout import StreamLayout, VisualKV
from owl3.model.windows import Ints


@dataclass
class FlexLayout(StreamLayout):
    """A stream whose three attentions are FlexAttention with block masks, made once for all layers.

    `text_mask` T x T, `image_mask` T x I L, `both_mask` T x (I L + T); the last two None without images.
    """

    text_mask: BlockMask | None = None
    image_mask: BlockMask | None = None
    both_mask: BlockMask | None = None

    @classmethod
    def of(
        cls, layout: StreamLayout, sample_T: Tensor, image_sample_I: Tensor, tokens_per_image: int, image_offset: int
    ) -> Self:
        """The same plan; `sample_T` and `image_sample_I` number the samples of tokens and images in stream order."""
        num_tokens, num_visual = len(sample_T), len(image_sample_I) * tokens_per_image
        device = sample_T.device

        def text(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            return (sample_T[q] == sample_T[k]) & (q >= k)

        def image(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            which = k // tokens_per_image
            return (sample_T[q] == image_sample_I[which]) & (q >= layout.image_tokens[which] + image_offset)

        def both(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
            is_image = k < num_visual
            seen = image(b, h, q, torch.where(is_image, k, 0))
            return torch.where(is_image, seen, text(b, h, q, torch.where(is_image, 0, k - num_visual)))

        def blocks(mask: Callable[..., Tensor], num_keys: int) -> BlockMask:
            return create_block_mask(mask, None, None, num_tokens, num_keys, device=str(device))

        return cls(
            **{each.name: getattr(layout, each.name) for each in fields(StreamLayout)},
            text_mask=blocks(text, num_tokens),
            image_mask=blocks(image, num_visual) if num_visual else None,
            both_mask=blocks(both, num_visual + num_tokens) if num_visual else None,
        )

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each sample."""
        return _flex(q, k, v, self.text_mask)

    def attend_images(self, q: Tensor, visual: VisualKV) -> Tensor:
        """Attention to the images a token sees; 0 where it sees none."""
        k, v = (x.flatten(0, 1).unsqueeze(0) for x in visual)
        return _flex(q, k, v, self.image_mask)

    def attend_both(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV) -> Tensor:
        """One softmax over images and text."""
        k_i, v_i = (x.flatten(0, 1).unsqueeze(0) for x in visual)
        return _flex(q, torch.cat((k_i, k), dim=1), torch.cat((v_i, v), dim=1), self.both_mask)


def _flex(q: Tensor, k: Tensor, v: Tensor, mask: BlockMask | None) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return _kernel(q.device.type)(q, k, v, block_mask=mask, enable_gqa=q.shape[1] != k.shape[1]).transpose(1, 2)


@cache
def _kernel(device_type: str) -> Callable[..., Any]:
    """FlexAttention, compiled on a GPU. On a CPU it runs uncompiled: right, and slower than sdpa."""
    kernel: Any = flex_attention
    return torch.compile(kernel, dynamic=True) if device_type == "cuda" else kernel


@dataclass
class FlashLayout(StreamLayout):
    """A stream whose text attention is FlashAttention over runs of variable length (the package `flash_attn`).

    Images, whose visibility no run can express, stay with the groups' masks.
    """

    cumulative: Tensor | None = None
    longest: int = 0

    @classmethod
    def of(cls, layout: StreamLayout, lengths: Ints) -> Self:
        """The same plan, with the samples' borders as the kernel wants them."""
        borders = torch.cat((layout.last_of_sample.new_zeros(1), layout.last_of_sample + 1))
        known = {each.name: getattr(layout, each.name) for each in fields(StreamLayout)}
        return cls(**known, cumulative=borders.to(torch.int32), longest=int(lengths.max()))

    def attend_text(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Causal attention inside each sample."""
        from flash_attn import flash_attn_varlen_func  # type: ignore[import-not-found]

        borders, longest = self.cumulative, self.longest
        out = flash_attn_varlen_func(q[0], k[0], v[0], borders, borders, longest, longest, causal=True)
        return out.unsqueeze(0)
