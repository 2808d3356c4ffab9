"""FlexAttention and FlashAttention carry out the same plan."""

import sys
from types import ModuleType

import pytest
import torch
from torch import Tensor

from owl3.model.attention import attend
from owl3.model.config import Fusion
from tests.model.conftest import FUSIONS, batch_of, fresh, make_sample, padded, tiny_model

PACK = [make_sample(9, [2]), make_sample(6, seed=1), make_sample(13, [0, 7], seed=2)]


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_flex_attention_gives_the_same_logits(fusion: Fusion) -> None:
    """Uncompiled here; on a GPU the same masks are compiled."""
    model = fresh(fusion)
    model.config._attn_implementation_internal = "flex_attention"
    for batch in (batch_of(PACK), padded(PACK, "left"), batch_of([make_sample(7)])):
        expected = tiny_model(fusion)(**batch).logits
        torch.testing.assert_close(model(**batch).logits, expected, atol=1e-4, rtol=1e-4)


def _varlen(
    q: Tensor, k: Tensor, v: Tensor, q_borders: Tensor, k_borders: Tensor, q_longest: int, k_longest: int, causal: bool
) -> Tensor:
    """What `flash_attn.flash_attn_varlen_func` computes."""
    assert causal and q_borders.dtype == torch.int32 and torch.equal(q_borders, k_borders)
    lengths = q_borders.diff().tolist()
    assert max(lengths) == q_longest == k_longest
    runs = zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True)
    return torch.cat([attend(q[None], k[None], v[None], None, causal=True)[0] for q, k, v in runs])


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_flash_attention_is_given_the_samples_borders(fusion: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = _varlen  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    model = fresh(fusion)
    model.config._attn_implementation_internal = "flash_attention_2"
    batch = batch_of(PACK)
    torch.testing.assert_close(model(**batch).logits, tiny_model(fusion)(**batch).logits, atol=1e-4, rtol=1e-4)
