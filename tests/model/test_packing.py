"""Packed equals apart: logits, loss and gradients. What a row holds beside a sample never shows."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.model import planning, windows
from owl3.model.config import Fusion
from owl3.model.layout import MAX_GROUPS
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.planning import plan_stream
from tests.model.conftest import FUSIONS, Sample, batch_of, fresh, logits_of, make_sample, padded, tiny_model

CLOSE = {"atol": 1e-4, "rtol": 1e-4}
"""fp32 logits of up to 10: kernels of other widths (and of other CPUs) sum in another order."""
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def fine_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples here are short; cut them into several windows all the same."""
    monkeypatch.setitem(windows.MIN_TOKENS, "cpu", 2)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    """Any length, any number of images anywhere: text only, image first, image last, several at one place.

    Every other one is of like size with others (14-16 tokens, 3-4 images), so that groups are padded.
    """
    alike = draw(st.booleans())
    length = draw(st.integers(14, 16) if alike else st.integers(1, 20))
    starts = draw(st.lists(st.integers(0, length - 1), min_size=3 * alike, max_size=3 + alike))
    return make_sample(length, sorted(starts), seed=draw(st.integers(0, 999)))


@pytest.mark.parametrize("fusion", FUSIONS)
@given(pack=st.lists(samples(), min_size=1, max_size=6))
@FEW
@torch.no_grad()
def test_a_packed_sample_has_the_logits_it_has_alone(fusion: Fusion, pack: list[Sample]) -> None:
    model = tiny_model(fusion)
    packed = model(**batch_of(pack)).logits[0].split([len(sample) for sample in pack])
    for sample, logits in zip(pack, packed, strict=True):
        torch.testing.assert_close(logits, logits_of(model, sample), **CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("fusion", FUSIONS)
@given(batch=st.lists(samples(), min_size=1, max_size=4))
@FEW
@torch.no_grad()
def test_padding_on_either_side_changes_nothing(fusion: Fusion, side: str, batch: list[Sample]) -> None:
    model = tiny_model(fusion)
    inputs = padded(batch, side)
    for output in (model(**inputs), model(**inputs, use_cache=True)):
        assert output.logits.isfinite().all()
        for row, sample in enumerate(batch):
            real = inputs["attention_mask"][row].bool()
            torch.testing.assert_close(output.logits[row, real], logits_of(model, sample), **CLOSE)


@pytest.mark.parametrize("fusion", FUSIONS)
@given(pack=st.lists(samples(), min_size=1, max_size=5), seed=st.integers(0, 99))
@FEW
def test_packed_gradients_are_the_sum_of_gradients_apart(fusion: Fusion, pack: list[Sample], seed: int) -> None:
    _gradients_are_equal(fusion, pack, seed)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_are_exact_however_few_groups_there_are(fusion: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    """All samples with images in one padded group, all without in another."""
    monkeypatch.setattr(planning, "MAX_GROUPS", 1)
    pack = [make_sample(5, [0, 3]), make_sample(17, [2]), make_sample(3), make_sample(11, [10, 10, 10]), make_sample(8)]
    row = batch_of(pack)
    plan = plan_stream(
        row["segment_ids"].numpy(),
        row["image_rows"].numpy(),
        row["image_starts"].numpy(),
        tokens_per_image=4,
        image_offset=1,
        joint=False,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    assert [(group.num_samples, group.num_tokens, group.num_images) for group in plan.groups] == [(2, 8, 0), (3, 17, 3)]
    _gradients_are_equal(fusion, pack, seed=0)


def _gradients_are_equal(fusion: Fusion, pack: list[Sample], seed: int) -> None:
    packed_model, model = fresh(fusion).train(), fresh(fusion).train()
    generator = torch.Generator().manual_seed(seed)
    labels = [torch.where(torch.rand(len(s), generator=generator) < 0.6, s.ids, -100) for s in pack]
    row = batch_of(pack)
    together = packed_model(**row, labels=torch.cat(labels)[None], num_items_in_batch=7).loss
    together.backward()
    apart = torch.tensor(0.0)
    for sample, label in zip(pack, labels, strict=True):
        loss = model(**batch_of([sample]), labels=label[None], num_items_in_batch=7).loss
        loss.backward()
        apart += loss.detach()
    torch.testing.assert_close(together.detach(), apart, **CLOSE)
    for (name, one), (_, other) in zip(packed_model.named_parameters(), model.named_parameters(), strict=True):
        if other.grad is None:
            assert one.grad is None, name
            continue
        assert one.grad is not None, name
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}")


@torch.no_grad()
def test_neighbours_do_not_show() -> None:
    """Changing one sample of a row, its pictures included, leaves the others' logits bit-equal."""
    model = tiny_model("joint")
    pack = [make_sample(9, [2]), make_sample(9, [4], seed=1), make_sample(9, seed=2)]
    other = [pack[0], make_sample(9, [4], seed=77), pack[2]]
    before, after = (model(**batch_of(each)).logits[0].split([9, 9, 9]) for each in (pack, other))
    assert torch.equal(before[0], after[0]) and torch.equal(before[2], after[2])
    assert not torch.equal(before[1], after[1])


@torch.no_grad()
def test_several_packed_rows_and_images_in_any_order() -> None:
    model = tiny_model("gated")
    pack = [make_sample(7, [1, 3]), make_sample(5), make_sample(11, [8], seed=3)]
    row = batch_of(pack)
    length = row["input_ids"].shape[1]
    order = torch.tensor([4, 0, 2, 5, 1, 3])
    two = {
        "input_ids": row["input_ids"].repeat(2, 1),
        "segment_ids": row["segment_ids"].repeat(2, 1),
        "pixel_values": row["pixel_values"].repeat(2, 1, 1, 1)[order],
        "image_rows": torch.tensor([0, 0, 0, 1, 1, 1])[order],
        "image_starts": row["image_starts"].repeat(2)[order],
    }
    expected = torch.cat([logits_of(model, sample) for sample in pack])
    logits = model(**two).logits
    assert logits.shape == (2, length, 97)
    torch.testing.assert_close(logits[0], expected, **CLOSE)
    torch.testing.assert_close(logits[1], expected, **CLOSE)


@torch.no_grad()
def test_given_positions_are_used_as_they_are() -> None:
    """Counting from 5 instead of 0 turns queries, keys and images together: nothing changes but rounding."""
    model = tiny_model("joint")
    row = batch_of([make_sample(12, [3])])
    shifted = model(**row, position_ids=torch.arange(5, 17)[None]).logits
    torch.testing.assert_close(shifted, model(**row).logits, atol=1e-4, rtol=1e-3)
    stretched = model(**row, position_ids=3 * torch.arange(12)[None]).logits
    assert not torch.allclose(stretched, shifted, atol=1e-2)


@given(lengths=st.lists(st.tuples(st.integers(1, 400), st.integers(0, 9)), min_size=1, max_size=60))
@FEW
def test_a_plan_holds_every_token_and_image_once_in_few_groups(lengths: list[tuple[int, int]]) -> None:
    segments = torch.repeat_interleave(
        torch.arange(1, len(lengths) + 1), torch.tensor([length for length, _ in lengths])
    )
    starts, offset = [], 0
    for length, num_images in lengths:
        starts += [offset] * num_images
        offset += length
    plan = plan_stream(
        segments[None].numpy(),
        torch.zeros(len(starts), dtype=torch.long).numpy(),
        torch.tensor(starts, dtype=torch.long).numpy(),
        tokens_per_image=1,
        image_offset=0,
        joint=False,
        dtype=torch.float32,
        device=torch.device("cpu"),
    )
    assert len(plan.groups) <= MAX_GROUPS
    assert sum(group.stream_tokens for group in plan.groups) == offset
    assert sum(group.stream_images for group in plan.groups) == len(starts)
    if plan.token_index is not None:
        assert sorted(plan.token_index.tolist()) == list(range(offset))
    for group in plan.groups:
        tokens = torch.randn(group.stream_tokens, 2)
        assert torch.equal(group.scatter(group.gather(tokens)), tokens)


def _no_grad_of_padding(model: Owl3ForConditionalGeneration, side: str) -> torch.Tensor:
    batch = padded([make_sample(4, [1]), make_sample(9, [2])], side)
    embeds = model.get_input_embeddings()(batch.pop("input_ids")).detach().requires_grad_()
    model(**batch, inputs_embeds=embeds).logits.sum().backward()
    assert embeds.grad is not None
    return embeds.grad[batch["attention_mask"] == 0]


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_gets_no_gradient(side: str) -> None:
    assert not _no_grad_of_padding(fresh("joint").train(), side).any()
