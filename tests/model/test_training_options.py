"""Gradient checkpointing, half precision, compilation, backends, lockstep: options that must not change the model."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from owl3.model.config import Fusion
from owl3.model.layout import Regroup
from owl3.model.modeling import Owl3ForConditionalGeneration
from tests.model.conftest import (
    FUSIONS,
    RELEASES,
    VOCAB,
    Golden,
    Sample,
    batch_of,
    fresh,
    make_sample,
    padded,
    tiny_config,
    tiny_model,
)

PACK = [make_sample(9, [2]), make_sample(6, seed=1), make_sample(13, [0, 7], seed=2)]


def gradients(model: Owl3ForConditionalGeneration) -> dict[str, Tensor]:
    batch = batch_of(PACK)
    model(**batch, labels=batch["input_ids"]).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradient_checkpointing_gives_the_same_gradients(fusion: Fusion) -> None:
    plain, saving = fresh(fusion).train(), fresh(fusion).train()
    saving.gradient_checkpointing_enable()
    assert saving.is_gradient_checkpointing
    expected, found = gradients(plain), gradients(saving)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        assert torch.equal(gradient, found[name]), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_eager_attention_gives_the_same_gradients(fusion: Fusion) -> None:
    fused, spelt_out = fresh(fusion).train(), fresh(fusion).train()
    spelt_out.set_attn_implementation("eager")
    expected, found = gradients(fused), gradients(spelt_out)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_bf16_is_near_fp32_and_packs_as_exactly(fusion: Fusion) -> None:
    half = fresh(fusion).to(torch.bfloat16)
    with torch.no_grad():
        packed = half(**batch_of(PACK)).logits[0].split([len(sample) for sample in PACK])
        for sample, logits in zip(PACK, packed, strict=True):
            alone = half(**batch_of([sample])).logits[0]
            exact = tiny_model(fusion)(**batch_of([sample])).logits[0]
            assert logits.dtype == torch.bfloat16 and logits.isfinite().all()
            # 8 bits of mantissa through three layers; what counts is that packing adds nothing to it
            spread = (alone.float() - exact).abs().mean()
            assert (logits.float() - alone.float()).abs().mean() <= spread
            assert spread < 0.1 * exact.std()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_weights_in_fp32_learn_under_bf16_autocast(fusion: Fusion) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(fresh(fusion).train())
    exact = gradients(fresh(fusion).train())
    assert all(gradient.dtype == torch.float32 for gradient in found.values())
    off = sum(float((found[name] - gradient).square().sum()) for name, gradient in exact.items())
    # 8 bits of mantissa through three layers, forward and back
    assert off < 0.1**2 * sum(float(gradient.square().sum()) for gradient in exact.values())


def modules_run(model: Owl3ForConditionalGeneration, samples: list[Sample], untrained: int) -> Counter[str]:
    """How often each module that has weights runs; labels of the first so many tokens are left out."""
    counts: Counter[str] = Counter()
    batch = batch_of(samples)
    labels = batch["input_ids"].clone()
    labels[:, :untrained] = -100
    handles = [
        module.register_forward_hook(lambda *_, name=name: counts.update([name]))
        for name, module in model.named_modules()
        if next(module.parameters(recurse=False), None) is not None
    ]
    model(**batch, labels=labels)
    for handle in handles:
        handle.remove()
    return counts


@pytest.mark.parametrize("fusion", [*FUSIONS, "sum", "concat"])
def test_in_lockstep_every_batch_runs_the_same_modules_equally_often(fusion: Fusion) -> None:
    """No picture, or more than one chunk of them; nothing to learn from, or more than one chunk; also in validation."""
    layers = {"hyper_layers": []} if fusion == "concat" else {}
    changes: dict[str, Any] = {"vision_batch_size": 2, "loss_chunk_size": 4, **layers}
    model = Owl3ForConditionalGeneration(tiny_config(fusion, **changes)).requires_grad_(False).train()
    model.language_model.requires_grad_(True)
    text, pictures = [make_sample(20)], [make_sample(9, [2]), make_sample(30, range(0, 20, 2), seed=1)]
    assert modules_run(model, text, 0) != modules_run(model, pictures, 0)
    model.lockstep = True
    expected = modules_run(model, text, 0)
    assert (
        modules_run(model, text, 20) == modules_run(model, pictures, 0) == modules_run(model, pictures, 39) == expected
    )
    with torch.no_grad():
        assert modules_run(model.eval(), text, 20) == modules_run(model, pictures, 0) == expected


def test_lockstep_changes_no_gradient() -> None:
    plain, in_step = fresh("gated").train(), fresh("gated").train()
    in_step.lockstep = True
    expected, found = gradients(plain), gradients(in_step)
    assert expected.keys() == found.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda m, name=name: f"{name}: {m}")


def test_a_model_with_more_tokens_still_learns_from_a_chunked_loss() -> None:
    """transformers makes a plain layer of the head that it resizes."""
    model = fresh("joint").train()
    model.config.loss_chunk_size = 4
    with torch.no_grad():
        before = model(**batch_of(PACK)).logits
    model.resize_token_embeddings(VOCAB + 3)
    assert torch.equal(model(**batch_of(PACK)).logits[..., :VOCAB], before)
    assert gradients(model)["language_model.lm_head.weight"].shape[0] == VOCAB + 3


@pytest.mark.shared
@pytest.mark.parametrize("release", RELEASES)
def test_image_angles_stay_fp32_in_half_precision(golden: Callable[[str], Golden], release: str) -> None:
    """Positions beyond 256 have no exact bf16 angle: the text's are rounded, as released, the images' are not."""
    model = golden(release).model.to(torch.bfloat16)
    assert model._rotation(torch.tensor([300]))[0].dtype == torch.float32
    text = model.language_model.model.rotary_emb(torch.zeros(1, dtype=torch.bfloat16), torch.tensor([[300]]))
    assert text[0].dtype == torch.bfloat16


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_left_padding_alone_never_gives_nan(fusion: Fusion) -> None:
    """A row that is nearly all padding, whose image comes last, in every backend."""
    for attention in ("sdpa", "eager"):
        model = fresh(fusion)
        model.set_attn_implementation(attention)
        batch = padded([make_sample(1), make_sample(12, [11])], "left")
        assert model(**batch).logits.isfinite().all()
        assert model(**batch, use_cache=True).logits.isfinite().all()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_hyper_layer_compiles_without_a_graph_break(fusion: Fusion) -> None:
    """Traced with `fullgraph`: a break would be an error. The backend runs the graph as it is."""
    batch = batch_of([make_sample(9, [2]), make_sample(9, [0], seed=2)])

    def loss_of(model: Owl3ForConditionalGeneration) -> Tensor:
        return model(**batch, labels=batch["input_ids"]).loss

    model, expected = fresh(fusion).train(), loss_of(fresh(fusion).train())
    model.language_model.model.layers[0].compile(fullgraph=True, backend="eager")
    loss = loss_of(model)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    torch._dynamo.reset()
    assert model.language_model.model.layers[0].self_attn.v_kv_proj.weight.grad.any()


def test_regrouping_knows_its_own_gradient() -> None:
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    index, back = torch.tensor([3, 1, 1, 0]), torch.tensor([3, 1, 0, 0, 0])
    real = torch.tensor([True, True, False, True, False])
    out = Regroup.apply(x, index, back, real)
    upstream = torch.randn(4, 3, dtype=torch.float64)
    upstream[2] = 0  # what a row's padding attends to is thrown away
    out.backward(upstream)
    expected = torch.zeros(5, 3, dtype=torch.float64).index_add(0, index, upstream)
    assert torch.equal(x.grad, expected)


@pytest.mark.parametrize("chunk_size", [0, 3])
def test_z_loss_adds_the_squared_logarithm_of_each_trained_tokens_denominator(chunk_size: int) -> None:
    model, batch = fresh("gated"), batch_of([make_sample(9, [2])])
    model.config.loss_chunk_size = chunk_size
    with torch.no_grad():
        plain = model(**batch, labels=batch["input_ids"], return_logits=True)
        tilted = model(**batch, labels=batch["input_ids"], z_loss=0.1)
    expected = plain.loss + 0.1 * plain.logits[:, :-1].logsumexp(-1).square().mean()
    torch.testing.assert_close(tilted.loss, expected)
