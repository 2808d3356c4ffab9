"""Hyper attention: how a layer of the language model looks at images.

A hyper layer is a Qwen2 layer whose attention also reads images. With x the text, V the image tokens (the projected
vision features, the same for every layer) and LN the layer's own input norm, shared by both:

    q, k, v   = LN(x) Wq, LN(x) Wk, LN(x) Wv        the layer's own projections; q, k rotated by text positions
    kv, vv    = LN(V) Wvk, LN(V) Wvv                the one new projection; kv rotated by the image's position

    gated, static_gate (240728, 241014)
        h_text  = softmax(q k' / sqrt(d)) v         causal
        h_image = softmax(q kv' / sqrt(d)) vv       over the images before the token
        g       = sigmoid(Wg h_text + bg)           gated: a (d, d) matrix, one for all heads
                  sigmoid(g0)                       static_gate: a learned number per channel
        h       = (1 - g) h_text + g h_image        plain h_text for a token that sees no image

    joint (241101)
        h       = softmax(q [kv, k]' / sqrt(d)) [vv, v]

    sum (never released; the ablation without a gate)
        h       = h_text + h_image

    output    = h Wo

No further query projection, norm, MLP or residual branch: what a hyper layer adds is Wvk, Wvv and the gate.

Source: mPLUG-Owl3 (arXiv:2408.04840 §2.2) and the released code of the three models.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import Qwen2Config
from transformers.models.qwen2.modeling_qwen2 import Qwen2Attention

from owl3.model.cache import Owl3Cache
from owl3.model.config import Fusion
from owl3.model.layout import Layout, VisualKV
from owl3.model.rope import rotate

_VISUAL_TOKENS_AT_ONCE = 1024

Rotation = tuple[Tensor, Tensor]
"""Cosines and sines, (…, d)."""


@dataclass
class Images:
    """The images that arrive with a forward pass.

    `unit` (I, L, D) are the image tokens, over their root mean square; `rotation` (I, d) each, fp32. With `anchor`
    nobody sees them: they only keep the visual parameters in the graph. `at_once`: project all of them in one go,
    whatever memory that takes.
    """

    unit: Tensor
    rotation: Rotation
    anchor: bool = False
    at_once: bool = False


class SelfAttention(Qwen2Attention):  # type: ignore[misc]
    """Qwen2's attention, carried out by a layout (who attends to whom is planned once for all layers)."""

    def forward(  # noqa: PLR0917 - as the layer passes them
        self,
        hidden: Tensor,
        rotation: Rotation,
        layout: Layout,
        images: Images | None,
        cache: Owl3Cache | None,
        norm: nn.Module,
    ) -> Tensor:
        """(B, S, D) -> (B, as many as the layout asks for, D); `norm`, the layer's own, is for text and images."""
        q, k, v = self.project(norm(hidden), rotation, cache, layout.num_asked)
        return self.o_proj(layout.attend_text(q, k, v).flatten(-2))

    def project(
        self, hidden: Tensor, rotation: Rotation, cache: Owl3Cache | None, num_asked: int | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (B, S or `num_asked`, H, d), keys and values (B, past + S, K, d), rotated by text positions."""
        cos, sin = (part.unsqueeze(2) for part in rotation)
        asked = slice(None if num_asked is None else -num_asked, None)
        q, k, v = (
            projection(given).unflatten(-1, (-1, self.head_dim))
            for projection, given in ((self.q_proj, hidden[:, asked]), (self.k_proj, hidden), (self.v_proj, hidden))
        )
        q, k = rotate(q, cos[:, asked], sin[:, asked]), rotate(k, cos, sin)
        if cache is not None:  # which keeps heads first
            k, v = cache.update(k.transpose(1, 2), v.transpose(1, 2), self.layer_idx)
            k, v = k.transpose(1, 2), v.transpose(1, 2)
        return q, k, v


class HyperAttention(SelfAttention, ABC):
    """Self-attention that also reads images; the base of the three fusions."""

    def __init__(self, config: Qwen2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        # Rows of the projection: per key-value head, d rows of keys, then d rows of values.
        self.v_kv_proj = nn.Linear(config.hidden_size, 2 * config.num_key_value_heads * self.head_dim, bias=True)
        self.image_norm: nn.Module | None = None  # as published, images share the layer's own norm

    def forward(  # noqa: PLR0917 - as the layer passes them
        self,
        hidden: Tensor,
        rotation: Rotation,
        layout: Layout,
        images: Images | None,
        cache: Owl3Cache | None,
        norm: nn.Module,
    ) -> Tensor:
        """As `SelfAttention`; a batch that has no images attends to text alone. With a cache, images are in it."""
        q, k, v = self.project(norm(hidden), rotation, cache, layout.num_asked)
        if cache is not None:
            visual = cache.visual(self.layer_idx, hidden.device)
        else:
            visual = None if images is None else self.project_images(images, norm)
        if visual is None:
            return self.o_proj(layout.attend_text(q, k, v).flatten(-2))
        if images is not None and images.anchor:
            return self.o_proj(self.anchor(layout.attend_text(q, k, v), visual).flatten(-2))
        return self.o_proj(self.fuse(q, k, v, visual, layout).flatten(-2))

    def project_images(self, images: Images, norm: nn.Module) -> VisualKV:
        """(I, L, D) -> two (I, L, K, d). All tokens of an image are rotated by the one position of its placeholder.

        Without gradients a few images go at a time, into the place where all shall lie: the products' inputs for
        hundreds of them would outweigh the model.
        """
        unit, (cos, sin) = images.unit, (x[:, None, None] for x in images.rotation)
        norm = norm if self.image_norm is None else self.image_norm
        at_once = images_at_once(unit.shape[1])
        if images.at_once or torch.is_grad_enabled() or len(unit) <= at_once:
            k, v = self._project(norm(unit, is_unit=True))
            return rotate(k, cos, sin), v
        both = None
        for start in range(0, len(unit), at_once):
            part = slice(start, start + at_once)
            k, v = self._project(norm(unit[part], is_unit=True))
            if both is None:
                both = k.new_empty(2, len(unit), *k.shape[1:])
            both[0, part], both[1, part] = rotate(k, cos[part], sin[part]), v
        assert both is not None
        return both[0], both[1]

    def _project(self, normed: Tensor) -> VisualKV:
        return self.v_kv_proj(normed).unflatten(-1, (-1, 2, self.head_dim)).unbind(-2)

    @abstractmethod
    def fuse(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV, layout: Layout) -> Tensor:
        """Text and images to (B, S, H, d)."""

    def anchor(self, text: Tensor, visual: VisualKV) -> Tensor:
        """`text`, in whose graph the visual parameters stand with a gradient of zero."""
        return text + 0 * (visual[0].mean() + visual[1].mean())


class JointAttention(HyperAttention):
    """One softmax over images and text (241101): the balance is set by the scores themselves."""

    def fuse(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV, layout: Layout) -> Tensor:
        """softmax(q [kv, k]') [vv, v]"""
        return layout.attend_both(q, k, v, visual)


class TwoSoftmaxAttention(HyperAttention):
    """A softmax over the text and one over the images, mixed by a gate."""

    @abstractmethod
    def gate_of(self, text: Tensor) -> Tensor:
        """The share of the images, in (0, 1), broadcastable to (B, S, H, d)."""

    def fuse(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV, layout: Layout) -> Tensor:
        """(1 - g) h_text + g h_image; g is 0 where no image is seen."""
        assert layout.sees_image is not None  # there are images
        text, image = layout.attend_text(q, k, v), layout.attend_images(q, visual)
        return torch.lerp(text, image, (self.gate_of(text) * layout.sees_image).to(text.dtype))  # under autocast: fp32

    def anchor(self, text: Tensor, visual: VisualKV) -> Tensor:
        """As above; the gate too is in the graph."""
        return super().anchor(text, visual) + 0 * self.gate_of(text)


class SumAttention(HyperAttention):
    """A softmax over the text and one over the images, added up: nothing sets the balance."""

    def fuse(self, q: Tensor, k: Tensor, v: Tensor, visual: VisualKV, layout: Layout) -> Tensor:
        """h_text + h_image, without the latter where no image is seen."""
        assert layout.sees_image is not None  # there are images
        return torch.addcmul(layout.attend_text(q, k, v), layout.attend_images(q, visual), layout.sees_image)


class GatedAttention(TwoSoftmaxAttention):
    """The gate is computed from the text (240728)."""

    def __init__(self, config: Qwen2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.gate_proj = nn.Sequential(nn.Linear(self.head_dim, self.head_dim), nn.Sigmoid())

    def gate_of(self, text: Tensor) -> Tensor:
        """sigmoid(Wg h_text + bg): (B, S, H, d), the same matrix for every head."""
        return self.gate_proj(text)


class StaticGatedAttention(TwoSoftmaxAttention):
    """The gate is learned, a number per channel (1B and 2B of 241014)."""

    def __init__(self, config: Qwen2Config, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.gate = nn.Parameter(torch.zeros(config.num_attention_heads * self.head_dim))

    def gate_of(self, text: Tensor) -> Tensor:
        """sigmoid(g0): (H, d)."""
        return self.gate.sigmoid().unflatten(-1, (-1, self.head_dim))


def images_at_once(tokens_per_image: int) -> int:
    """How many images are projected together where nothing of them is needed for a backward pass."""
    return max(1, _VISUAL_TOKENS_AT_ONCE // tokens_per_image)


FUSIONS: dict[Fusion, type[SelfAttention]] = {
    "gated": GatedAttention,
    "static_gate": StaticGatedAttention,
    "joint": JointAttention,
    "sum": SumAttention,
    "concat": SelfAttention,
}
