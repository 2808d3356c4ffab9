"""Generation: a cache changes nothing but time; rows and beams do not disturb each other."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import DynamicCache

from owl3.bench.meter import peak_tensor_bytes
from owl3.errors import InputError
from owl3.model import hyper_attention, windows
from owl3.model.cache import HyperLayer, Owl3Cache
from owl3.model.config import Fusion
from owl3.model.hyper_attention import GatedAttention, Images
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.norm import Owl3RMSNorm
from owl3.model.rope import image_rotation
from tests.model.conftest import FUSIONS, Sample, batch_of, make_sample, padded, tiny_config, tiny_model

MIXED = [make_sample(4), make_sample(9, [2], seed=1), make_sample(12, [0, 5, 5], seed=2)]


@pytest.fixture(autouse=True)
def fine_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples here are short; cut them into several windows all the same."""
    monkeypatch.setitem(windows.MIN_TOKENS, "cpu", 2)


def generate(model: Owl3ForConditionalGeneration, batch: dict[str, Tensor], **options: Any) -> Tensor:
    """New tokens (B, up to 6); no token ends an answer."""
    batch = {name: value for name, value in batch.items() if name != "segment_ids"}
    defaults = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    return model.generate(**batch, **defaults | options)[:, batch["input_ids"].shape[1] :]


def greedy_without_cache(model: Owl3ForConditionalGeneration, sample: Sample, steps: int = 6) -> list[int]:
    """The whole text again for each token."""
    ids = sample.ids
    for _ in range(steps):
        with torch.no_grad():
            batch = batch_of([Sample(ids, sample.starts, sample.pixels)])
            ids = torch.cat((ids, model(**batch).logits[0, -1:].argmax(-1)))
    return ids[len(sample) :].tolist()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_left_padded_mixed_batch_answers_as_its_rows_without_cache(fusion: Fusion, attention: str) -> None:
    model = tiny_model(fusion)
    model.set_attn_implementation(attention)
    answers = generate(model, padded(MIXED, "left")).tolist()
    assert answers == [greedy_without_cache(model, sample) for sample in MIXED]
    assert generate(model, padded(MIXED, "left"), use_cache=False).tolist() == answers
    model.set_attn_implementation("sdpa")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_one_token_prompt_with_an_image_works(fusion: Fusion) -> None:
    """The released code takes one token for a decoding step, and crashes."""
    sample = make_sample(1, [0])
    model = tiny_model(fusion)
    assert generate(model, batch_of([sample]))[0].tolist() == greedy_without_cache(model, sample)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_prefill_in_pieces_equals_prefill_at_once(fusion: Fusion) -> None:
    """New images may arrive with any piece, as in a conversation of several turns."""
    model, sample = tiny_model(fusion), make_sample(14, [1, 6, 10])
    whole = model(**batch_of([sample])).logits
    cache, pieces = None, []
    for first, last in ((0, 5), (5, 8), (8, 9), (9, 14)):
        inside = [index for index, start in enumerate(sample.starts) if first <= start < last]
        images = {
            "pixel_values": sample.pixels[inside],
            "image_rows": torch.zeros(len(inside), dtype=torch.long),
            "image_starts": torch.tensor([sample.starts[index] - first for index in inside]),
        }
        output = model(sample.ids[None, first:last], past_key_values=cache, use_cache=True, **images if inside else {})
        cache = output.past_key_values
        pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_beam_search_with_a_cache_equals_beam_search_without(fusion: Fusion) -> None:
    model = tiny_model(fusion)
    batch = padded(MIXED, "left")
    beams = {"num_beams": 3, "num_return_sequences": 2}
    assert generate(model, batch, **beams).tolist() == generate(model, batch, **beams, use_cache=False).tolist()


def test_beams_share_pictures_and_leave_their_keys_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, seen = tiny_model("gated"), []
    encode = model.encode_images
    monkeypatch.setattr(model, "encode_images", lambda pixels: seen.append(len(pixels)) or encode(pixels))
    monkeypatch.setattr(HyperLayer, "_map_visual", lambda *_: pytest.fail("visual keys were moved"))
    generate(model, padded(MIXED, "left"), num_beams=4)
    assert seen == [4]


@torch.no_grad()
def test_reordering_across_prompts_moves_their_images() -> None:
    model = tiny_model("joint")
    batch = padded(MIXED, "left")
    cache = model(**batch, use_cache=True).past_key_values
    order, token = torch.tensor([2, 0, 1]), torch.tensor([[3], [4], [5]])
    mask = torch.cat((batch["attention_mask"], torch.ones(3, 1, dtype=torch.long)), dim=1)
    expected = model(token, attention_mask=mask, past_key_values=_copy(model, batch)).logits
    cache.reorder_cache(order)
    moved = model(token[order], attention_mask=mask[order], past_key_values=cache).logits
    torch.testing.assert_close(moved, expected[order])


@torch.no_grad()
def test_rows_of_a_cache_can_be_repeated_selected_and_cropped() -> None:
    model = tiny_model("gated")
    batch = padded(MIXED, "left")
    token, mask = torch.tensor([[3], [4], [5]]), torch.ones(3, 1, dtype=torch.long)
    mask = torch.cat((batch["attention_mask"], mask), dim=1)
    expected = model(token, attention_mask=mask, past_key_values=_copy(model, batch)).logits
    cache = _copy(model, batch)
    cache.batch_repeat_interleave(2)
    cache.batch_select_indices(torch.tensor([5, 1]))
    rows = torch.tensor([2, 0])
    torch.testing.assert_close(
        model(token[rows], attention_mask=mask[rows], past_key_values=cache).logits, expected[rows]
    )
    cache = _copy(model, batch)
    model(token, attention_mask=mask, past_key_values=cache)
    cache.crop(-1)
    torch.testing.assert_close(model(token, attention_mask=mask, past_key_values=cache).logits, expected)
    cache.reset()
    assert cache.get_seq_length() == 0 and cache.visual(0, torch.device("cpu")) is None


@torch.no_grad()
def test_pictures_that_no_row_shows_are_no_images() -> None:
    model, none = tiny_model("gated"), torch.zeros(0, dtype=torch.long)
    batch, text = batch_of([make_sample(5, [2])]), {"input_ids": batch_of([make_sample(5)])["input_ids"]}
    unused = {"pixel_values": batch["pixel_values"], "image_rows": none, "image_starts": none, "image_index": none}
    for cached in (False, True):
        assert torch.equal(model(**text, **unused, use_cache=cached).logits, model(**text, use_cache=cached).logits)


@torch.no_grad()
def test_cropping_an_image_away_hides_it() -> None:
    model, sample = tiny_model("joint"), make_sample(8, [1, 6])
    batch = batch_of([sample])
    batch.pop("segment_ids")
    cache = model(**batch, use_cache=True).past_key_values
    cache.crop(-3)
    short = batch_of([Sample(sample.ids[[0, 1, 2, 3, 4, 1]], sample.starts[:1], sample.pixels[:1])])
    logits = model(sample.ids[None, [1]], past_key_values=cache).logits[0, -1]
    torch.testing.assert_close(logits, model(**short).logits[0, -1], atol=1e-4, rtol=1e-4)


def test_visual_keys_are_projected_once_per_hyper_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, calls = tiny_model("joint"), []
    for layer in model.language_model.model.layers:
        if hasattr(layer.self_attn, "v_kv_proj"):
            layer.self_attn.v_kv_proj.register_forward_hook(lambda *_: calls.append(1))
    try:
        generate(model, batch_of([make_sample(7, [2])]))
    finally:
        for layer in model.language_model.model.layers:
            if hasattr(layer.self_attn, "v_kv_proj"):
                layer.self_attn.v_kv_proj._forward_hooks.clear()
    assert len(calls) == len(model.config.hyper_layers)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_many_images_are_projected_a_few_at_a_time_with_the_same_result(
    fusion: Fusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where every row has equally many, which then lie in the cache as they were projected."""
    model = tiny_model(fusion)
    batch = padded([make_sample(9, [0, 2, 3]), make_sample(12, [1, 5, 5], seed=2)], "left")
    at_once = [model(**batch, use_cache=cached).logits for cached in (False, True)]
    monkeypatch.setattr(hyper_attention, "_VISUAL_TOKENS_AT_ONCE", 2 * model.config.tokens_per_image)
    for cached, expected in zip((False, True), at_once, strict=True):
        # Products of other shapes sum in another order, on each CPU in its own; a swapped image makes 7.
        torch.testing.assert_close(model(**batch, use_cache=cached).logits, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_projecting_many_images_takes_little_more_memory_than_what_is_kept() -> None:
    config = tiny_config("gated")
    attention = GatedAttention(config.text_config, 0)
    features = torch.randn(64, 512, config.text_config.hidden_size)  # sixteen times what is projected at once
    images = Images(features, image_rotation(torch.arange(64), torch.ones(attention.head_dim // 2)))
    norm = Owl3RMSNorm(config.text_config.hidden_size)
    kept = sum(x.nbytes for x in attention.project_images(images, norm))
    peak = peak_tensor_bytes(lambda: attention.project_images(images, norm), torch.device("cpu"))
    assert kept <= peak < 1.5 * kept


@torch.no_grad()
def test_of_many_images_a_cache_takes_little_more_memory_than_it_keeps() -> None:
    """All hyper layers together: image tokens, normed or not, are never held beside their keys and values."""
    text = tiny_model("gated").language_model.model
    tokens = torch.randn(64, 512, text.config.text_config.hidden_size)
    rotation = image_rotation(torch.arange(64), text.rotary_emb.inv_freq)
    cache = Owl3Cache(text.config)
    peak = peak_tensor_bytes(lambda: text.remember(tokens, rotation, None, 1, cache), torch.device("cpu"))
    kept = sum(x.nbytes for layer in cache.layers if isinstance(layer, HyperLayer) for x in layer.visual or ())
    assert kept <= peak < 1.2 * kept


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_pass_through_a_cache(fusion: Fusion) -> None:
    """Also with rows of few and many images, which lie in its slots in another order."""
    batch = padded([make_sample(9, [2]), make_sample(12, [1, 5, 5], seed=2)], "right")
    grads = []
    for cached in (False, True):
        model = tiny_model(fusion)
        logits = model(**batch, use_cache=cached).logits[batch["attention_mask"] > 0]
        logits.square().mean().backward()
        grads.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert any("v_kv_proj" in name for name in grads[0])
    torch.testing.assert_close(grads[1], grads[0], atol=1e-5, rtol=1e-4)


def test_sampling_is_reproducible_and_in_each_return_sequence_different() -> None:
    model, batch = tiny_model("static_gate"), padded(MIXED, "left")
    options = {"do_sample": True, "temperature": 1.5, "num_return_sequences": 3, "max_new_tokens": 8}

    def sampled(seed: int) -> list[list[int]]:
        torch.manual_seed(seed)
        return generate(model, batch, **options).tolist()

    assert sampled(0) == sampled(0) != sampled(1)
    assert len({tuple(row) for row in sampled(0)}) > 3


def test_streaming_gives_the_tokens_one_by_one() -> None:
    class Streamer:
        def __init__(self) -> None:
            self.parts: list[list[int]] = []

        def put(self, value: Tensor) -> None:
            self.parts.append(value.flatten().tolist())

        def end(self) -> None:
            self.parts.append([])

    model, streamer = tiny_model("joint"), Streamer()
    batch = batch_of([make_sample(6, [1])])
    answer = generate(model, batch, streamer=streamer)[0].tolist()
    assert streamer.parts == [batch["input_ids"][0].tolist(), *[[token] for token in answer], []]


def test_other_caches_are_refused_by_name() -> None:
    model, batch = tiny_model("joint"), batch_of([make_sample(6, [1])])
    with pytest.raises(InputError, match="past_key_values is a DynamicCache, which can't hold images"):
        generate(model, batch, past_key_values=DynamicCache())
    with pytest.raises(InputError, match="cache_implementation='static' can't hold images"):
        generate(model, batch, cache_implementation="static")


def test_an_offloaded_cache_moves_images_too() -> None:
    layer = HyperLayer()
    keys = torch.ones(1, 2, 3, 4)
    layer.update(keys, keys)
    layer.add_visual((torch.ones(1, 4, 2, 4), torch.ones(1, 4, 2, 4)))
    layer.offload()
    layer.prefetch()
    assert layer.visual is not None and layer.visual[0].device == keys.device


def test_an_offloading_cache_holds_images_in_host_memory_from_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accelerator would else hold those of all layers at once."""
    device = torch.device("meta")
    cache = Owl3Cache(tiny_config("joint"))
    assert cache.home(device) == device
    monkeypatch.setattr(cache, "offloading", True)
    assert cache.home(device) == torch.device("cpu")


def _copy(model: Owl3ForConditionalGeneration, batch: dict[str, Tensor]) -> Owl3Cache:
    cache = model(**batch, use_cache=True).past_key_values
    assert isinstance(cache, Owl3Cache)
    return cache
