"""The attention benchmark compares like with like."""

from pathlib import Path

import pytest
import torch

from owl3.bench.attention_figures import Row, plot, ratios, write_tables
from owl3.bench.baselines import Concatenation, PlainTwoSoftmax, interleave
from owl3.bench.meter import interleaved, peak_bytes, peak_tensor_bytes
from owl3.model.config import Fusion
from tests.model.conftest import make_sample, padded, tiny_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("fusion", ["gated", "static_gate"])
@torch.no_grad()
def test_the_plain_model_computes_what_ours_computes(fusion: Fusion) -> None:
    """So a difference in time is one of method, not of arithmetic."""
    model, rows = tiny_model(fusion), [make_sample(6), make_sample(9, [2], seed=1), make_sample(12, [0, 5], seed=2)]
    batch = padded(rows, "right")
    expected = model(**batch).last_hidden_state
    features = model.encode_images(batch["pixel_values"])
    plain = PlainTwoSoftmax(model).forward(
        batch["input_ids"], batch["attention_mask"], features, batch["image_rows"], batch["image_starts"]
    )
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(plain[real], expected[real], atol=2e-5, rtol=1e-4)


@torch.no_grad()
def test_concatenation_puts_images_before_the_token_at_their_place() -> None:
    text, features = torch.arange(4.0).view(1, 4, 1), torch.tensor([[[10.0], [11.0]], [[20.0], [21.0]]])
    assert interleave(text, features, torch.tensor([0, 3])).flatten().tolist() == [10, 11, 0, 1, 2, 20, 21, 3]
    concat = Concatenation(tiny_model("gated"))
    cache = concat.prefill(torch.arange(5)[None], torch.randn(2, 4, 32), torch.tensor([1, 3]))
    assert cache.get_seq_length() == 13
    concat.step(torch.tensor([[1]]), cache)
    assert cache.get_seq_length() == 14


def test_a_peak_is_seen_although_it_is_freed() -> None:
    assert peak_bytes(lambda: bytearray(64 << 20), CPU) > 60 << 20


def test_the_peak_of_tensors_counts_what_lives_at_once() -> None:
    def work() -> None:
        for _ in range(3):
            torch.ones(1 << 20) + torch.ones(1 << 20)  # two inputs and their sum, then all are freed

    assert peak_tensor_bytes(work, CPU) == 3 * 4 << 20


def test_variants_are_measured_in_turn() -> None:
    calls: list[str] = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, CPU)
    assert calls == ["a", "b"] * 3 and times.keys() == {"a", "b"}


def test_ratios_tables_and_a_plot_from_known_figures(tmp_path: Path) -> None:
    def row(images: int, ours: float, concat: float) -> Row:
        times, memory = {"ours": ours, "concat": concat}, {"ours": int(ours * 100), "concat": int(concat * 100)}
        return Row(
            169,
            images,
            prefill_s=times,
            peak_bytes=memory,
            tensor_bytes=memory | {"kept": int(ours * 50)},
            peak_bytes_all_logits=memory,
            decode_s={"ours": ours, "text": 1.0, "concat": concat},
        )

    training = {
        "seconds": {"packed": 1.0, "padded": 3.0},
        "peak_bytes": {"packed": 40, "padded": 100},
        "tensor_bytes": {"packed": 30, "padded": 100},
        "losses": {"packed": 2.0, "padded": 2.0, "one by one": 2.0},
    }
    rows = [row(1, 1.0, 2.0), row(8, 2.0, 16.0), row(64, 12.0, 99.0)]
    found = ratios(rows, training)
    assert found["prefill, peer / ours"]["8 x 169"] == {"concat": 8.0}
    assert found["peak memory, tensors alive, peer / ours"]["8 x 169"] == {
        "concat": 8.0,
        "concat / kept by ours": 16.0,
    }
    assert found["prefill time saved against concatenation, mean %"] == {"169 tokens per image": 75.1}
    assert found["decoding, peer / ours"]["8 x 169"] == {"concat": 8.0, "ours against text only": 2.0}
    assert found["most images (of those measured) in the memory of concatenation's 8"] == {
        "169 tokens per image": {"ours": 64, "concat": 8}
    }
    assert found["training step, padded / packed"] == 3.0 and found["training memory, packed / padded"] == {
        "tensors alive": 0.3,
        "resident": 0.4,
    }
    result = {"machine": "m", "shapes": "small", "fusion": "gated", "text_tokens": 256, "ratios": found}
    result |= {"rows": [vars(each) for each in rows], "training": training}
    write_tables(result, tmp_path / "a.md")
    plot(result, tmp_path / "a.png")
    assert "| 169 | 8 | 2000.0 | 16000.0 |" in (tmp_path / "a.md").read_text()
    assert (tmp_path / "a.png").stat().st_size > 1000
