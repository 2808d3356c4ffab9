"""Qwen2's MLP, keeping less for the backward pass.

Between its matrix products, `silu(gate) * up` leaves autograd four tensors of the intermediate size to keep: both
inputs, the silu, and the product. The silu costs next to nothing to compute again, so one of the four need not be kept;
these tensors are most of what a layer keeps. Values and gradients are the same to the last bit.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP


class _GatedSilu(torch.autograd.Function):
    """silu(gate) * up, elementwise."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate) * up

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (grad,) = grads
        return torch.ops.aten.silu_backward(grad * up, gate), grad * F.silu(gate)


class Owl3MLP(Qwen2MLP):  # type: ignore[misc]
    """(…, D) -> (…, D): down(silu(gate(x)) * up(x)). Weights are named as Qwen2's."""

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        if self.config.hidden_act != "silu":
            return super().forward(x)
        gate, up = self.gate_proj(x), self.up_proj(x)
        product = _GatedSilu.apply(gate, up) if torch.is_grad_enabled() else F.silu(gate, inplace=True).mul_(up)
        return self.down_proj(product)
