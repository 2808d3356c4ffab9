"""The training loss: each sample's next tokens, and the logits of no token that is not trained."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from owl3.model.layout import StreamLayout

IGNORED = -100


def next_token_loss(
    hidden: Tensor,
    lm_head: nn.Module,
    labels: Tensor,
    layout: StreamLayout,
    *,
    num_items: float | Tensor | None,
    chunk_size: int,
    z_loss: float = 0.0,
) -> Tensor:
    """Cross-entropy in fp32 over the tokens that a label follows, inside the same sample.

    Args:
        hidden: (1, T, D) of the stream.
        labels: (B, S), not shifted, -100 = not trained.
        num_items: What the sum is divided by; None = the number of trained tokens here.
        chunk_size: Tokens whose logits exist at once (0 = all). More chunks are recomputed in the backward pass,
            so that a large vocabulary never takes (T, vocabulary) memory.
        z_loss: Weight of the squared logarithm of each softmax's denominator, which keeps logits from drifting
            (ST-MoE, arXiv:2202.08906; 1e-4 is usual).

    Returns:
        0-d; exactly 0, with a gradient of zeros, when nothing is trained.
    """
    flat = labels.to(hidden.device).flatten()
    target = flat if layout.token_index is None else flat[layout.token_index]
    target = target.roll(-1)
    target[layout.last_of_sample] = IGNORED
    trained = (target != IGNORED).nonzero().squeeze(1)
    if not len(trained):  # the head too must be in the graph: every rank reduces the same gradients
        return lm_head(hidden[:, :1]).float().mean() * 0
    hidden, target = hidden.squeeze(0)[trained], target[trained]
    if chunk_size and len(trained) > chunk_size:
        parts = zip(hidden.split(chunk_size), target.split(chunk_size), strict=True)
        sums = [checkpoint(_summed_loss, h, t, lm_head, z_loss, use_reentrant=False) for h, t in parts]
        total = torch.stack(sums).sum()
    else:
        total = _summed_loss(hidden, target, lm_head, z_loss)
    return total / (len(trained) if num_items is None else num_items)


def _summed_loss(hidden: Tensor, target: Tensor, lm_head: nn.Module, z_loss: float) -> Tensor:
    logits = lm_head(hidden).float()
    loss = F.cross_entropy(logits, target, reduction="sum")
    return loss + z_loss * logits.logsumexp(-1).square().sum() if z_loss else loss
