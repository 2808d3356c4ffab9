"""Tiny models of the three fusions, and batches for them."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from owl3.model.config import Fusion, Owl3Config
from owl3.model.convert import _config_of_released
from owl3.model.modeling import Owl3ForConditionalGeneration

FUSIONS: tuple[Fusion, ...] = ("gated", "static_gate", "joint")
RELEASES = ("240728", "241014", "241101")
VOCAB = 97


def tiny_config(fusion: Fusion = "joint", **changes: Any) -> Owl3Config:
    """Three layers of width 32, two of them hyper; pictures of 28 px are 4 visual tokens.

    Fresh weights are large (0.3), so that attention is far from uniform and every term shows.
    """
    values: dict[str, Any] = {
        "fusion": fusion,
        "projector": "mlp" if fusion == "joint" else "linear",
        "hyper_layers": [1, 3],
        "initializer_range": 0.3,
        "text_config": {
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 128,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
        },
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 28,
            "patch_size": 14,
        },
    }
    for part in ("text_config", "vision_config"):
        values[part] |= changes.pop(part, {})
    return Owl3Config(**values | changes)


_MODELS: dict[Fusion, Owl3ForConditionalGeneration] = {}


def tiny_model(fusion: Fusion = "joint") -> Owl3ForConditionalGeneration:
    """A model to read; use `fresh` to change one."""
    if fusion not in _MODELS:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            _MODELS[fusion] = Owl3ForConditionalGeneration(tiny_config(fusion)).eval()
        for name, parameter in _MODELS[fusion].named_parameters():
            if name.endswith("self_attn.gate"):
                torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return _MODELS[fusion]


def fresh(fusion: Fusion = "joint") -> Owl3ForConditionalGeneration:
    """A copy of the tiny model, to train or change."""
    return copy.deepcopy(tiny_model(fusion))


@dataclass
class Sample:
    """Token ids, the columns at which images stand, and the images' pixels (I, 3, 28, 28)."""

    ids: Tensor
    starts: Sequence[int] = ()
    pixels: Tensor = field(default_factory=lambda: torch.zeros(0, 3, 28, 28))

    def __len__(self) -> int:
        return len(self.ids)


def make_sample(length: int, starts: Sequence[int] = (), seed: int = 0) -> Sample:
    """Random tokens and images."""
    generator = torch.Generator().manual_seed(seed * 1009 + length)
    return Sample(
        torch.randint(VOCAB, (length,), generator=generator),
        list(starts),
        torch.randn(len(starts), 3, 28, 28, generator=generator),
    )


def batch_of(samples: Sequence[Sample]) -> dict[str, Tensor]:
    """One sample alone, or several packed into one row; arguments of the model's forward."""
    segments = torch.cat([torch.full((len(sample),), index + 1) for index, sample in enumerate(samples)])
    offsets = [sum(len(sample) for sample in samples[:index]) for index in range(len(samples))]
    starts = [offset + start for offset, sample in zip(offsets, samples, strict=True) for start in sample.starts]
    batch = {"input_ids": torch.cat([sample.ids for sample in samples])[None], "segment_ids": segments[None]}
    return batch | _images(samples, torch.zeros(len(starts), dtype=torch.long), starts)


def padded(samples: Sequence[Sample], side: str) -> dict[str, Tensor]:
    """One sample per row, padded to the longest."""
    longest = max(len(sample) for sample in samples)
    ids, mask = torch.full((len(samples), longest), 1), torch.zeros(len(samples), longest, dtype=torch.long)
    rows, starts = [], []
    for row, sample in enumerate(samples):
        first = longest - len(sample) if side == "left" else 0
        ids[row, first : first + len(sample)] = sample.ids
        mask[row, first : first + len(sample)] = 1
        rows += [row] * len(sample.starts)
        starts += [first + start for start in sample.starts]
    return {"input_ids": ids, "attention_mask": mask} | _images(samples, torch.tensor(rows), starts)


def _images(samples: Sequence[Sample], rows: Tensor, starts: Sequence[int]) -> dict[str, Tensor]:
    if not starts:
        return {}
    pixels = torch.cat([sample.pixels for sample in samples])
    return {"pixel_values": pixels, "image_rows": rows.long(), "image_starts": torch.tensor(starts)}


@torch.no_grad()
def logits_of(model: Owl3ForConditionalGeneration, sample: Sample) -> Tensor:
    """(length, vocabulary) of a sample alone."""
    return model(**batch_of([sample])).logits[0]


@dataclass
class Golden:
    """What the released code computes for a tiny random model."""

    release: str
    model: Owl3ForConditionalGeneration
    meta: dict[str, Any]
    tensors: dict[str, Tensor]
    folder: Path

    def inputs(self, case: str) -> dict[str, Tensor]:
        """Arguments of the model's forward."""
        starts = torch.tensor(self.meta["cases"][case]["image_starts"])
        return {
            "input_ids": self.tensors[f"{case}.input_ids"],
            "pixel_values": self.tensors[f"{case}.pixel_values"],
            "image_rows": torch.zeros_like(starts),
            "image_starts": starts,
        }


@pytest.fixture
def golden(shared_data: Callable[[str], Path]) -> Callable[[str], Golden]:
    """Load a release's golden model and cases; skips where they are not on this machine."""

    def load(release: str) -> Golden:
        folder = shared_data(f"goldens/{release}")
        meta = json.loads((folder / "meta.json").read_bytes())
        weights = load_file(folder / "model.safetensors")
        config = _config_of_released(meta["config"], {name: tuple(w.shape) for name, w in weights.items()}, folder)
        model = Owl3ForConditionalGeneration(config).eval()
        missing, unexpected = model.load_state_dict(weights, strict=False)
        tied = ["language_model.lm_head.weight"] if config.tie_word_embeddings else []
        assert (missing, unexpected) == (tied, [])
        return Golden(release, model, meta, load_file(folder / "cases.safetensors"), folder)

    return load
