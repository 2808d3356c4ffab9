"""What must not change: text before an image, a gate at 0, a batch without images. And what must: everything after."""

import pytest
import torch

from owl3.errors import ConfigError
from owl3.model.config import Fusion
from owl3.model.trainable import PARAMETER_GROUPS, grouped_parameters, set_trainable
from tests.model.conftest import FUSIONS, batch_of, fresh, logits_of, make_sample, padded, tiny_model


@pytest.mark.parametrize("fusion", FUSIONS)
def test_text_before_an_image_does_not_see_it(fusion: Fusion) -> None:
    """Two-softmax models first see an image one token after its placeholder begins, joint ones at once."""
    model = tiny_model(fusion)
    start, sample = 6, make_sample(14, [6])
    text = make_sample(14)
    first_reader = start + model.config.image_offset
    with_image, without = logits_of(model, sample), logits_of(model, text)
    assert torch.equal(sample.ids, text.ids)
    torch.testing.assert_close(with_image[:first_reader], without[:first_reader], atol=1e-5, rtol=1e-5)
    assert ((with_image - without).abs().amax(-1)[first_reader:] > 1e-3).all()


@pytest.mark.parametrize("fusion", ["gated", "static_gate"])
def test_a_closed_gate_is_text_only(fusion: Fusion) -> None:
    model = fresh(fusion)
    for name, parameter in model.named_parameters():
        if ".self_attn.gate" in name:
            torch.nn.init.constant_(parameter, 0.0 if name.endswith("weight") else -200.0)
    sample = make_sample(12, [2, 5])
    assert torch.equal(logits_of(model, sample), logits_of(model, make_sample(12)))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_order_of_images_at_one_place_does_not_matter(fusion: Fusion) -> None:
    """Images have no position among themselves: only that of their placeholder."""
    model, sample = tiny_model(fusion), make_sample(10, [3, 3])
    swapped = make_sample(10, [3, 3])
    swapped.pixels = sample.pixels.flip(0)
    torch.testing.assert_close(logits_of(model, sample), logits_of(model, swapped), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("frozen_vision", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_batch_without_images_has_zero_visual_gradients_and_no_effect(fusion: Fusion, frozen_vision: bool) -> None:
    model = fresh(fusion).train()
    groups = [group for group in PARAMETER_GROUPS if not (frozen_vision and group == "vision_model")]
    trained = set_trainable(model, groups)
    batch = batch_of([make_sample(9), make_sample(5)])
    loss = model(**batch, labels=batch["input_ids"]).loss
    model.eval()
    assert torch.equal(loss.detach(), model(**batch, labels=batch["input_ids"]).loss.detach())
    loss.backward()
    assert all(parameter.grad is not None for parameter in trained.values())
    for group, parameters in grouped_parameters(model).items():
        gradients = [parameter.grad for parameter in parameters.values() if parameter.grad is not None]
        if group == "language_model":
            assert any(gradient.any() for gradient in gradients)
        else:
            assert not any(gradient.any() for gradient in gradients), group


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_batch_with_images_reaches_every_trained_parameter(fusion: Fusion) -> None:
    model = fresh(fusion).train()
    trained = set_trainable(model, PARAMETER_GROUPS)
    batch = batch_of([make_sample(9, [1]), make_sample(5)])
    model(**batch, labels=batch["input_ids"]).loss.backward()
    still = [name for name, parameter in trained.items() if parameter.grad is None or not parameter.grad.any()]
    assert still == []


def test_nothing_trained_is_a_loss_of_zero_that_reaches_the_head() -> None:
    model = fresh("joint").train()
    batch = batch_of([make_sample(6, [1])])
    loss = model(**batch, labels=torch.full_like(batch["input_ids"], -100)).loss
    loss.backward()
    assert loss.item() == 0
    assert model.language_model.lm_head.weight.grad is not None
    assert not model.language_model.lm_head.weight.grad.any()


def test_loss_is_the_mean_or_the_sum_over_a_given_number() -> None:
    model = tiny_model("gated")
    batch = batch_of([make_sample(6, [1]), make_sample(4)])
    labels = batch["input_ids"].clone()
    labels[0, :3] = -100
    logits = model(**batch).logits[0]
    targets = {2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9}  # column -> the next one of the same sample
    losses = [-logits[c].log_softmax(-1)[labels[0, n]] for c, n in targets.items()]
    expected = torch.stack(losses)
    torch.testing.assert_close(model(**batch, labels=labels).loss, expected.mean())
    torch.testing.assert_close(model(**batch, labels=labels, num_items_in_batch=10).loss, expected.sum() / 10)


def test_a_loss_in_chunks_is_the_same_with_the_same_gradients() -> None:
    whole, chunked = fresh("joint"), fresh("joint")
    chunked.config.loss_chunk_size = 3
    batch = batch_of([make_sample(14, [1])])
    losses = [model(**batch, labels=batch["input_ids"]).loss for model in (whole, chunked)]
    torch.testing.assert_close(*losses)
    for loss in losses:
        loss.backward()
    for one, other in zip(whole.parameters(), chunked.parameters(), strict=True):
        if one.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)


def test_groups_are_disjoint_and_hold_all_that_runs() -> None:
    model = fresh("gated")
    groups = grouped_parameters(model)
    names = [name for parameters in groups.values() for name in parameters]
    assert len(names) == len(set(names))
    idle = {name for name, _ in model.named_parameters()} - set(names)
    assert idle and all(
        name.startswith(("vision_model.encoder.layers.1.", "vision_model.post_layernorm.", "vision_model.head."))
        for name in idle
    )
    assert set(groups["gate"]) == {
        f"language_model.model.layers.{layer}.self_attn.gate_proj.0.{part}"
        for layer in (0, 2)
        for part in ("weight", "bias")
    }


def test_training_some_groups_freezes_the_rest() -> None:
    model = fresh("joint")
    trained = set_trainable(model, ["projector", "visual_kv", "gate"])
    assert all(name.startswith("vision2text_model") or "v_kv_proj" in name for name in trained)
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == set(trained)
    with pytest.raises(ConfigError, match=r"unknown parameter group 'lm'; one of projector"):
        set_trainable(model, ["lm"])


def test_a_frozen_vision_model_keeps_nothing_for_a_backward_pass() -> None:
    model = fresh("joint").train()
    set_trainable(model, ["language_model"])
    assert not model.encode_images(make_sample(3, [0]).pixels).requires_grad
    set_trainable(model, ["projector"])
    features = model.encode_images(make_sample(3, [0]).pixels)
    assert features.requires_grad and "Vision" not in str(features.grad_fn)


def test_a_mixed_batch_equals_its_rows() -> None:
    """Text only beside one image beside three."""
    model = tiny_model("joint")
    rows = [make_sample(5), make_sample(8, [2]), make_sample(11, [0, 4, 9])]
    logits = model(**padded(rows, "right")).logits
    for row, sample in enumerate(rows):
        torch.testing.assert_close(logits[row, : len(sample)], logits_of(model, sample), atol=1e-4, rtol=1e-4)
