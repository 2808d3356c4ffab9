"""The norm that text and images share.

An RMS norm divides each token by its root mean square, then scales each channel. The first half has no weights, so for
image tokens, which are the same in every hyper layer, it is the same too: it is done once (`unit_rms`), and a layer
only scales. Values are those of Qwen2's norm, to the last bit.
"""

import torch
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm


class Owl3RMSNorm(Qwen2RMSNorm):  # type: ignore[misc]
    """(…, D) -> (…, D). Weights are named as Qwen2's."""

    def forward(self, x: Tensor, is_unit: bool = False) -> Tensor:
        """Norm `x`; only scale it if it comes from `unit_rms`."""
        return self.weight * x if is_unit else super().forward(x)


def unit_rms(x: Tensor, eps: float) -> Tensor:
    """(…, D) over its root mean square: computed in fp32, in the dtype of `x`."""
    wide = x.to(torch.float32)
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype)
