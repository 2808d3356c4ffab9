"""The MLP gives what Qwen2's gives, and keeps less of it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from owl3.model.mlp import Owl3MLP


def both(act: str = "silu") -> tuple[Owl3MLP, Qwen2MLP]:
    config = Qwen2Config(hidden_size=8, intermediate_size=24, hidden_act=act)
    ours, theirs = Owl3MLP(config), Qwen2MLP(config)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("act", ["silu", "gelu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_values_and_gradients_are_those_of_qwen2_to_the_last_bit(dtype: torch.dtype, act: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 8, dtype=dtype)
    found = []
    for mlp in both(act):
        mlp.to(dtype)
        given = x.clone().requires_grad_()
        out = mlp(given)
        out.square().sum().backward()
        found.append([out, given.grad, *(parameter.grad for parameter in mlp.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)


def test_the_backward_pass_keeps_one_tensor_of_the_intermediate_size_less() -> None:
    x = torch.randn(2, 5, 8, requires_grad=True)

    def kept(mlp: Callable[[Tensor], Tensor]) -> int:
        wide: set[int] = set()

        def pack(tensor: Tensor) -> Tensor:
            if tensor.shape == (2, 5, 24) or tensor.shape == (10, 24):
                wide.add(tensor.data_ptr())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            held = mlp(x)
        assert held.requires_grad
        return len(wide)

    ours, theirs = both()
    assert (kept(ours), kept(theirs)) == (3, 4)
