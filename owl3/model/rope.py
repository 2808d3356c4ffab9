"""Multimodal interleaved rotary positions (MI-RoPE): where an image stands in the text.

    text token at position p      rotated by p, as in Qwen2
    all L tokens of an image      rotated by one position: that of its placeholder in the text
    values, queries' second use   not rotated again

An image has no positions inside itself: the vision model's own position embedding has told its patches apart.

Shape letters: B rows, I images, L tokens per image, H heads, d head size.
"""

import torch
from torch import Tensor


def image_rotation(position_I: Tensor, inv_freq: Tensor) -> tuple[Tensor, Tensor]:
    """The cosines and sines by which images are rotated.

    Args:
        position_I: Position of each image, in tokens; any leading shape.
        inv_freq: (d / 2,) angle per position, of the text's rotary embedding.

    Returns:
        Two fp32 tensors (*position_I.shape, d), whatever the model's dtype: a bf16 angle is off by up to 1/256 of a
        turn of the slowest-but-one frequency already at a few hundred tokens.
    """
    angle = position_I.to(torch.float32)[..., None] * inv_freq.to(device=position_I.device, dtype=torch.float32)
    angle = torch.cat((angle, angle), dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the last dimension by halves, as Qwen2 does; computed in the wider of the two dtypes, returned in x's."""
    first, second = x.chunk(2, dim=-1)
    return torch.addcmul(x * cos, torch.cat((-second, first), dim=-1), sin).to(x.dtype)
