"""The training loss: each sample's next tokens, and the logits of no token that is not trained."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from owl3.model.layout import StreamLayout

IGNORED = -100


class Owl3Head(nn.Linear):
    """The language model's head, which can also sum up a loss.

    The loss is computed inside of it, however many chunks there are: what gathers a module's weights before it runs and
    lets go of them afterwards (ZeRO-3) then does so once, and equally often on every rank.
    """

    def forward(self, hidden: Tensor, target: Tensor | None = None, chunk_size: int = 0, z_loss: float = 0.0) -> Tensor:
        """Logits (…, V) of (…, D); with a `target` (T,) for (T, D), their summed loss, 0-d: see `next_token_loss`."""
        if target is None:
            return super().forward(hidden)
        if not chunk_size or len(target) <= chunk_size:
            return self._summed_loss(hidden, target, z_loss)
        parts = zip(hidden.split(chunk_size), target.split(chunk_size), strict=True)
        return torch.stack([checkpoint(self._summed_loss, h, t, z_loss, use_reentrant=False) for h, t in parts]).sum()

    def _summed_loss(self, hidden: Tensor, target: Tensor, z_loss: float) -> Tensor:
        logits = super().forward(hidden).float()
        loss = F.cross_entropy(logits, target, reduction="sum")
        return loss + z_loss * logits.logsumexp(-1).square().sum() if z_loss else loss


def next_token_loss(
    hidden: Tensor,
    lm_head: Owl3Head,
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
    total: Tensor = lm_head(hidden, target, chunk_size, z_loss)
    return total / (len(trained) if num_items is None else num_items)
