"""Windows leave out only what nobody sees."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from owl3.model import windows
from owl3.model.attention import attend
from owl3.model.config import Fusion
from owl3.model.windows import MAX_WINDOWS, NEVER, Ints, Window, cut, look, plan_windows
from tests.model.conftest import FUSIONS, make_sample, padded, tiny_model

LENGTH = 3  # tokens per image


@st.composite
def arrivals(draw: st.DrawFn) -> tuple[Ints, int]:
    """(n, m) first token that sees each sample's images, in order, `NEVER` where a sample has fewer; and t."""
    num_tokens = draw(st.integers(1, 300))
    counts = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3).filter(any))
    seen = np.full((len(counts), max(counts)), NEVER)
    for row, count in enumerate(counts):
        places = st.lists(st.integers(-5, num_tokens + 5), min_size=count, max_size=count)
        seen[row, :count] = sorted(draw(places))
    return seen, num_tokens


@given(arrivals())
def test_windows_cover_each_token_once_and_hold_all_that_any_sample_sees(given: tuple[Ints, int]) -> None:
    seen, num_tokens = given
    found = cut(seen.min(0), seen.max(0), num_tokens)
    assert [start for start, *_ in found] == [0, *(end for _, end, *_ in found[:-1])]
    assert found[-1][1] == num_tokens and len(found) <= MAX_WINDOWS + 2
    for start, end, count, is_open in found:
        visible = np.arange(start, end)[:, None] >= seen[:, None]
        assert not visible[..., count:].any()
        assert visible[..., :count].any((0, 1)).all()  # none is kept in vain
        assert visible[..., :count].all() == is_open


def _visible(seen: Ints, num_tokens: int) -> Tensor:
    return torch.from_numpy(np.arange(num_tokens)[:, None] >= seen[:, None])


@given(arrivals(), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_attention_by_windows_is_attention_under_one_mask(given: tuple[Ints, int], seed: int) -> None:
    seen, num_tokens = given
    samples, images = seen.shape
    torch.manual_seed(seed)
    q = torch.randn(samples, num_tokens, 4, 8)
    k, v = torch.randn(2, samples, images * LENGTH, 2, 8)
    visible = _visible(seen, num_tokens)
    planned = plan_windows(seen.min(0), seen.max(0), visible, LENGTH, torch.float32, joint=False)
    sees = visible.any(-1)
    mask = torch.zeros(samples, 1, num_tokens, images * LENGTH)
    mask.masked_fill_(~(visible | ~sees[..., None]).repeat_interleave(LENGTH, -1)[:, None], -torch.inf)
    got = look(q, (k, v), planned, LENGTH, eager=False)
    torch.testing.assert_close(got[sees], attend(q, k, v, mask)[sees], atol=1e-5, rtol=1e-5)
    assert got.isfinite().all()


def test_text_after_its_images_needs_no_mask_and_text_before_them_no_attention() -> None:
    seen = np.array([[40, 40]])
    before, after = plan_windows(seen[0], seen[0], _visible(seen, 100), LENGTH, torch.float32, joint=False)
    assert (before.start, before.end, before.num_images) == (0, 40, 0)
    assert (after.start, after.end, after.num_images, after.mask(LENGTH)) == (40, 100, 2, None)


@torch.no_grad()
def test_masks_are_kept_only_for_a_backward_pass_and_then_once() -> None:
    seen = np.arange(0, 200, 7)[None]
    with torch.enable_grad():
        trained = _plan(seen, 256)
    assert sum(window.kept is not None for window in trained) > 4
    for window, other in zip(_plan(seen, 256), trained, strict=True):
        made = window.mask(LENGTH)
        assert window.kept is None and other.mask(LENGTH) is other.kept
        assert (made is None) == (other.kept is None)
        assert made is None or torch.equal(made, other.kept)  # type: ignore[arg-type]


def _plan(seen: Ints, num_tokens: int) -> list[Window]:
    return plan_windows(seen[0], seen[0], _visible(seen, num_tokens), LENGTH, torch.float32, joint=False)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_fine_windows_give_the_logits_of_coarse_ones(fusion: Fusion, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(fusion)
    batch = padded([make_sample(60, [3, 20, 21, 40]), make_sample(41, [0, 30], seed=1), make_sample(5)], "left")
    coarse = [model(**batch, use_cache=cached).logits for cached in (False, True)]
    monkeypatch.setitem(windows.MIN_TOKENS, "cpu", 3)
    real = batch["attention_mask"].bool()
    for cached, expected in zip((False, True), coarse, strict=True):
        torch.testing.assert_close(model(**batch, use_cache=cached).logits[real], expected[real], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kept", [1, 4, 12, 20])
@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_columns_whose_logits_are_not_kept_leave_the_last_layer_early(fusion: Fusion, kept: int) -> None:
    """The last layer is a hyper layer here; the cache still gets all keys and values."""
    model = tiny_model(fusion)
    calls: list[int] = []
    batch = padded([make_sample(12, [1, 9]), make_sample(7, [2], seed=1), make_sample(9)], "left")
    whole = model(**batch, use_cache=True)
    last = model.language_model.model.layers[-1]
    hook = last.mlp.register_forward_hook(lambda _, given, __: calls.append(given[0].shape[1]))
    part = model(**batch, use_cache=True, logits_to_keep=kept)
    hook.remove()
    assert calls == [min(kept, 12)]
    torch.testing.assert_close(part.logits, whole.logits[:, -kept:], atol=1e-4, rtol=1e-4)
    token, mask = torch.tensor([[3], [4], [5]]), torch.ones(3, 13, dtype=torch.long)
    mask[:, :12] = batch["attention_mask"]
    after = [model(token, attention_mask=mask, past_key_values=each.past_key_values).logits for each in (whole, part)]
    torch.testing.assert_close(after[0], after[1], atol=1e-4, rtol=1e-4)
