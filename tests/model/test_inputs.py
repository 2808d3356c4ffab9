"""A forward pass that contradicts itself is refused, saying how."""

from typing import Any

import pytest
import torch

from owl3.errors import InputError
from tests.model.conftest import batch_of, make_sample, tiny_model

ONE = make_sample(8, [2])


def changed(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in {**batch_of([ONE]), **changes}.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_ids": None}, "give either input_ids or inputs_embeds"),
        ({"inputs_embeds": torch.zeros(1, 8, 32)}, "give either input_ids or inputs_embeds"),
        ({"image_rows": None}, "pixel_values holds 1 images, but image_rows is missing"),
        ({"pixel_values": None}, "image_rows places 1 images, but there are no pixel_values"),
        ({"image_starts": torch.tensor([1, 2])}, "image_starts places 2 images, pixel_values holds 1"),
        ({"pixel_values": torch.zeros(1, 3, 30, 28)}, r"pixel_values is \(1, 3, 30, 28\); this model reads"),
        ({"image_starts": torch.tensor([8])}, "image 0: row 0, column 8 is not a token of the 1 x 8 batch"),
        ({"image_rows": torch.tensor([1])}, "image 0: row 1, column 2 is not a token"),
        ({"segment_ids": torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1]])}, r"\(outside of it, or padding\)"),
        ({"segment_ids": torch.tensor([[1, 1, 1, 2, 2, 1, 1, 1]])}, "a sample must be one run of columns"),
        ({"segment_ids": torch.zeros(1, 8, dtype=torch.long)}, "the batch holds no token, only padding"),
        ({"segment_ids": torch.ones(1, 7)}, r"segment_ids \(or attention_mask\) is \(1, 7\), the batch \(1, 8\)"),
        ({"position_ids": torch.arange(121, 129)[None]}, "position 128, but max_position_embeddings is 128"),
        ({"output_attentions": True}, "forward has no use for the argument output_attentions"),
        ({"use_cache": True}, "leave out segment_ids and labels"),
        ({"use_cache": True, "segment_ids": None, "attention_mask": torch.ones(1, 9)}, r"it must be \(1, 8\)"),
    ],
)
def test_contradictions_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tiny_model()(**changed(**changes))


def test_a_text_longer_than_the_rotary_table_is_refused() -> None:
    model = tiny_model()
    with pytest.raises(InputError, match="a token stands at position 128, but max_position_embeddings is 128"):
        model(torch.zeros(1, 129, dtype=torch.long))
    packed = batch_of([make_sample(100), make_sample(100)])
    assert model(**packed).logits.shape[1] == 200  # positions restart: none is beyond 99


def test_an_image_after_the_last_token_is_seen_by_nobody_and_breaks_nothing() -> None:
    """The released two-softmax code crashes on it."""
    model = tiny_model("gated")
    with torch.no_grad():
        seen = model(**batch_of([make_sample(5, [4])])).logits
        assert torch.equal(seen, model(**batch_of([make_sample(5)])).logits)
