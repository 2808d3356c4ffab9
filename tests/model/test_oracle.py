"""The model computes its formulas, written out as loops."""

import pytest
import torch

from owl3.model.config import Fusion
from tests.model.conftest import FUSIONS, Sample, batch_of, make_sample, tiny_model
from tests.model.oracle import oracle_logits

SAMPLES = {
    "images between text": make_sample(13, [1, 7]),
    "image first": make_sample(8, [0], seed=2),
    "image last": make_sample(6, [5], seed=3),
    "two images at once": make_sample(9, [2, 3], seed=4),
    "text only": make_sample(5, seed=5),
    "one token": make_sample(1, seed=6),
}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES.keys())
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_logits_are_those_of_the_formulas(fusion: Fusion, sample: Sample, attention: str) -> None:
    model = tiny_model(fusion)
    features = model.encode_images(sample.pixels) if sample.starts else torch.zeros(0, 4, 32)
    expected = oracle_logits(model.config, dict(model.state_dict()), sample.ids.tolist(), list(sample.starts), features)
    model.set_attn_implementation(attention)
    batch = batch_of([sample])
    # logits reach 20 here, in fp32 and in another order of sums
    torch.testing.assert_close(model(**batch).logits[0], expected, atol=1e-4, rtol=1e-4)
    batch.pop("segment_ids")
    torch.testing.assert_close(model(**batch, use_cache=True).logits[0], expected, atol=1e-4, rtol=1e-4)
    model.set_attn_implementation("sdpa")


@torch.no_grad()
def test_vision_features_are_siglips_second_to_last_hidden_state() -> None:
    """26 of 27 layers, before the final norm; taken in chunks, they are the same."""
    model = tiny_model("gated")
    pixels = make_sample(3, [0] * 5).pixels
    hidden = model.vision_model(pixels, output_hidden_states=True).hidden_states[-2]
    expected = model.vision2text_model(hidden)
    torch.testing.assert_close(model.encode_images(pixels), expected)
    model.config.vision_batch_size = 2
    torch.testing.assert_close(model.encode_images(pixels), expected)
    model.config.vision_batch_size = 16
