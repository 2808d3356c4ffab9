"""The norm is Qwen2's, in two halves."""

import pytest
import torch
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from owl3.model.norm import Owl3RMSNorm, unit_rms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_norm_in_two_halves_is_qwen2s_to_the_last_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    norm, theirs = Owl3RMSNorm(16).to(dtype), Qwen2RMSNorm(16).to(dtype)
    torch.nn.init.normal_(norm.weight)
    theirs.load_state_dict(norm.state_dict())
    x = torch.randn(5, 7, 16, dtype=dtype)
    assert torch.equal(norm(unit_rms(x, norm.variance_epsilon), is_unit=True), theirs(x))
    assert torch.equal(norm(x), theirs(x))
