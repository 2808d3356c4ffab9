"""Softmax attention over masks: the one place where a backend is chosen.

Shape letters: B rows, S queries, M keys, H heads, K key-value heads, d head size. Tensors are token-major,
(B, S, H, d), as projections give them; no head is repeated in memory, unless a CUDA kernel leaves no choice.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BACKENDS = ("eager", "sdpa", "flex_attention", "flash_attention_2")


def attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool = False, eager: bool = False
) -> Tensor:
    """softmax(q k' / sqrt(d) + mask) v, with each key-value head serving H / K query heads.

    Args:
        q: (B, S, H, d)
        k: (B, M, K, d)
        v: (B, M, K, d)
        mask: Additive (B or 1, 1, S, M), or None. No row may be all -inf: such a query must be opened,
            and its result thrown away, by the caller.
        causal: Without a mask: query i sees keys 0..i.
        eager: Spell the formula out instead of calling PyTorch's fused kernel.

    Returns:
        (B, S, H, d)
    """
    if eager:
        return _attend_eager(q, k, v, mask, causal)
    groups = q.shape[2] // k.shape[2]
    if groups > 1 and not causal and _is_same_for_all(mask) and not torch.is_grad_enabled():
        return _attend_folded(q, k, v, mask, groups)
    if mask is not None and groups > 1 and q.device.type == "cuda":
        # CUDA's masked kernels know no groups, and PyTorch would write all scores out instead.
        k, v = (x.repeat_interleave(groups, dim=2) for x in (k, v))
    grouped = q.shape[2] != k.shape[2]
    out = F.scaled_dot_product_attention(
        q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask, is_causal=causal, enable_gqa=grouped
    )
    return out.transpose(1, 2)


def _is_same_for_all(mask: Tensor | None) -> bool:
    """Whether all queries see the same keys."""
    return mask is None or mask.shape[2] == 1


def _attend_folded(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, groups: int) -> Tensor:
    """The heads that share keys are queries of one head: keys are read once for all of them. It copies queries."""
    folded = q.unflatten(2, (-1, groups)).permute(0, 2, 3, 1, 4).flatten(2, 3)  # (B, K, groups x S, d)
    out = F.scaled_dot_product_attention(folded, k.transpose(1, 2), v.transpose(1, 2), attn_mask=mask)
    return out.unflatten(2, (groups, -1)).permute(0, 3, 1, 2, 4).flatten(2, 3)


def attend_two(
    q: Tensor, first: tuple[Tensor, Tensor, Tensor | None], second: tuple[Tensor, Tensor, Tensor | None]
) -> Tensor:
    """One softmax over two sets of keys that lie apart in memory; each set is (k, v, mask) as in `attend`.

    For few queries: it writes the scores out, and so spares copying both sets beside each other at every step.
    """
    scores = torch.cat([_scores(q, k, mask) for k, _, mask in (first, second)], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    sizes = [first[0].shape[1], second[0].shape[1]]
    parts = [_weigh(w, v) for w, (_, v, _) in zip(weights.split(sizes, dim=-1), (first, second), strict=True)]
    return (parts[0] + parts[1]).view(q.shape)


def _attend_eager(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    if causal and q.shape[1] > 1:
        future = torch.ones(q.shape[1], k.shape[1], dtype=torch.bool, device=q.device).triu(1)
        mask = torch.zeros_like(future, dtype=q.dtype).masked_fill_(future, -torch.inf)[None, None]
    weights = _scores(q, k, mask).softmax(dim=-1, dtype=torch.float32).to(q.dtype)
    return _weigh(weights, v).view(q.shape)


def _scores(q: Tensor, k: Tensor, mask: Tensor | None) -> Tensor:
    """(B, S, H, d), (B, M, K, d) -> (B, S, K, H / K, M): query heads are folded, so keys need not be repeated."""
    folded = q.unflatten(2, (k.shape[2], -1))
    scores = torch.einsum("bskgd,bmkd->bskgm", folded, k) * q.shape[-1] ** -0.5
    return scores if mask is None else scores + mask.transpose(1, 2).unsqueeze(2)


def _weigh(weights: Tensor, v: Tensor) -> Tensor:
    """(B, S, K, H / K, M), (B, M, K, d) -> (B, S, H, d)"""
    return torch.einsum("bskgm,bmkd->bskgd", weights, v).flatten(2, 3)


def causal_mask(num_queries: int, num_keys: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Additive (1, 1, queries, keys) mask of queries that are the last of the keys."""
    allowed = torch.ones(num_queries, num_keys, dtype=torch.bool, device=device).tril(num_keys - num_queries)
    return additive(allowed, dtype)[None, None]


def additive(allowed: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where allowed, -inf elsewhere."""
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, -torch.inf)
