"""The switches that leave the paper's design one piece at a time: each is what it says, and as exact as the rest."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from owl3.errors import ConfigError, InputError
from owl3.model.convert import convert
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.trainable import grouped_parameters
from tests.model.conftest import Sample, batch_of, fresh, logits_of, make_sample, padded, tiny_config
from tests.model.test_generation import generate, greedy_without_cache

VARIANTS = {
    "concat": {"fusion": "concat", "hyper_layers": []},
    "sum": {"fusion": "sum"},
    "no-rotary": {"fusion": "gated", "image_rotary": False},
    "own-norm": {"fusion": "gated", "shared_layernorm": False},
}
MIXED = [make_sample(4), make_sample(9, [2], seed=1), make_sample(12, [0, 5, 5], seed=2)]
CLOSE = {"atol": 1e-4, "rtol": 1e-4}


def model_of(variant: str) -> Owl3ForConditionalGeneration:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Owl3ForConditionalGeneration(tiny_config(**VARIANTS[variant])).eval()
    for name, parameter in model.named_parameters():
        if "image_norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 2.0, generator=torch.Generator().manual_seed(1))
    return model


@pytest.mark.parametrize("variant", VARIANTS)
@torch.no_grad()
def test_packed_and_padded_samples_have_the_logits_they_have_alone(variant: str) -> None:
    model = model_of(variant)
    alone = [logits_of(model, sample) for sample in MIXED]
    packed = model(**batch_of(MIXED)).logits[0].split([len(sample) for sample in MIXED])
    for one, other in zip(packed, alone, strict=True):
        torch.testing.assert_close(one, other, **CLOSE)
    for side in ("left", "right"):
        inputs = padded(MIXED, side)
        for output in (model(**inputs), model(**inputs, use_cache=True)):
            for row, want in enumerate(alone):
                torch.testing.assert_close(output.logits[row, inputs["attention_mask"][row].bool()], want, **CLOSE)


@pytest.mark.parametrize("variant", VARIANTS)
def test_answers_with_a_cache_are_those_without(variant: str) -> None:
    model = model_of(variant)
    answers = generate(model, padded(MIXED, "left")).tolist()
    assert answers == [greedy_without_cache(model, sample) for sample in MIXED]
    beams = {"num_beams": 3, "num_return_sequences": 2}
    cached, uncached = (generate(model, padded(MIXED, "left"), **beams, use_cache=use) for use in (True, False))
    assert cached.tolist() == uncached.tolist()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_weight_that_runs_learns_with_images_and_has_a_gradient_without(variant: str) -> None:
    model = model_of(variant).train()
    running = {name for group in grouped_parameters(model).values() for name in group}
    for pack in (MIXED, MIXED[:1]):
        model.zero_grad()
        batch = batch_of(pack)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} >= running
    assert any(".image_norm." in name for name in running) == (variant == "own-norm")


@torch.no_grad()
def test_concatenated_images_are_tokens_of_a_plain_language_model() -> None:
    """By hand: image tokens before their placeholder, positions counted over both, one causal softmax."""
    model, sample = model_of("concat"), make_sample(7, [3], seed=5)
    features = model.encode_images(sample.pixels)
    embeds = model.get_input_embeddings()(sample.ids)
    row = torch.cat((embeds[:3], features[0], embeds[3:]))
    whole = model(inputs_embeds=row[None]).logits[0]
    length = features.shape[1]
    torch.testing.assert_close(logits_of(model, sample), torch.cat((whole[:3], whole[3 + length :])), **CLOSE)


@torch.no_grad()
def test_a_conversation_goes_on_in_a_cache_of_concatenated_images() -> None:
    model, sample = model_of("concat"), make_sample(14, [1, 6, 10])
    cache, pieces = None, []
    for first, last in ((0, 5), (5, 8), (8, 14)):
        inside = [index for index, start in enumerate(sample.starts) if first <= start < last]
        part = Sample(sample.ids[first:last], [sample.starts[i] - first for i in inside], sample.pixels[inside])
        inputs = {name: value for name, value in batch_of([part]).items() if name != "segment_ids"}
        output = model(**inputs, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        assert cache.get_seq_length() == last
        pieces.append(output.logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1)[0], logits_of(model, sample), **CLOSE)


@torch.no_grad()
def test_without_image_rotary_the_place_of_an_image_in_the_past_does_not_matter() -> None:
    """Moved, but still before every token compared: equal without MI-RoPE, different with it."""

    def late_logits(model: Owl3ForConditionalGeneration, start: int) -> Tensor:
        one = make_sample(9, [0], seed=4)
        return model(**batch_of([Sample(one.ids, [start], one.pixels)])).last_hidden_state

    single = {"hyper_layers": [3]}  # the last layer only: what early tokens saw must not reach later ones
    for rotary in (True, False):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            model = Owl3ForConditionalGeneration(tiny_config("gated", **single, image_rotary=rotary)).eval()
        equal = torch.allclose(late_logits(model, 0)[:, 6:], late_logits(model, 4)[:, 6:], **CLOSE)
        assert equal != rotary


@torch.no_grad()
def test_without_a_gate_images_are_added_to_the_text() -> None:
    """An image whose values are zero changes nothing; under a gate it would take the text's share away."""
    sample = make_sample(8, [1])
    for model, unchanged in ((model_of("sum"), True), (fresh("gated"), False)):
        for layer in model.language_model.model.layers:
            if hasattr(layer.self_attn, "v_kv_proj"):
                layer.self_attn.v_kv_proj.weight.zero_()
                layer.self_attn.v_kv_proj.bias.zero_()
        text = Sample(sample.ids)
        assert torch.allclose(logits_of(model, sample), logits_of(model, text), **CLOSE) == unchanged


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_ablation_is_not_passed_off_as_a_release(variant: str, tmp_path: Path) -> None:
    model_of(variant).save_pretrained(tmp_path / "ours")
    with pytest.raises(InputError, match="an ablation's architecture"):
        convert(tmp_path / "ours", tmp_path / "released", to="released")


def test_switches_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fusion concat has none; set it to \[\]"):
        tiny_config("concat")
    assert tiny_config("joint", template="240728").release == "240728"
    assert (tiny_config("sum").release, tiny_config("joint").release) == ("240728", "241101")
