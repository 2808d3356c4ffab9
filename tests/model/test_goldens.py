"""The three releases: the same numbers as the released code, for tiny random models."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoTokenizer

from owl3.model.image_processing import Owl3ImageProcessor
from owl3.model.processing import Owl3Processor
from tests.model.conftest import RELEASES, Golden

pytestmark = pytest.mark.shared
CASES = ("one_image_cut", "two_images_nocut", "video", "multi_turn")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("release", RELEASES)
def test_logits_are_the_released_ones(golden: Callable[[str], Golden], release: str, case: str) -> None:
    reference = golden(release)
    for attention in ("sdpa", "eager"):
        reference.model.set_attn_implementation(attention)
        with torch.no_grad():
            stream = reference.model(**reference.inputs(case)).logits
            cached = reference.model(**reference.inputs(case), use_cache=True).logits
        # fp32 sums in another order; logits reach 10, four layers: 5e-5 is some 40 ulp
        assert (stream - reference.tensors[f"{case}.logits"]).abs().max() < 5e-5
        assert (cached - reference.tensors[f"{case}.logits"]).abs().max() < 5e-5


@pytest.mark.parametrize("release", RELEASES)
def test_greedy_answers_are_the_released_ones(golden: Callable[[str], Golden], release: str) -> None:
    reference = golden(release)
    for case in CASES:
        inputs = reference.inputs(case)
        ids = reference.model.generate(**inputs, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=0)[
            0, inputs["input_ids"].shape[1] :
        ].tolist()
        printed = reference.meta["cases"][case]["greedy"][0]
        # The reference filters id 0 ("!") out of what it prints: a fault that is not reproduced.
        assert [token for token in ids if token] == printed


@pytest.mark.parametrize("release", RELEASES)
def test_the_processor_gives_the_released_ids_and_pixels(
    golden: Callable[[str], Golden], shared_data: Callable[[str], Path], release: str
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(shared_data("data/tokenizer_qwen2"))
    processor = Owl3Processor(Owl3ImageProcessor(image_size=56), tokenizer, release=release)
    reference = golden(release)
    for name, case in reference.meta["cases"].items():

        def picture(key: str, name: str = name) -> Image.Image:
            return Image.fromarray(reference.tensors[f"{name}.raw.{key}"].numpy())

        encoded = processor(
            case["messages"],
            images=[picture(key) for key in case["images"] or []],
            videos=[[picture(key) for key in video] for video in case["videos"] or []],
            cut_enable=case["cut_enable"],
        )
        assert encoded["input_ids"].tolist() == reference.tensors[f"{name}.token_ids"].tolist()
        assert encoded["image_starts"].tolist() == case["image_starts"]
        assert (encoded["pixel_values"] - reference.tensors[f"{name}.pixel_values"]).abs().max() < 1e-6


@pytest.mark.parametrize("release", RELEASES)
def test_packed_and_right_padded_golden_cases_equal_the_single_runs(
    golden: Callable[[str], Golden], release: str
) -> None:
    reference = golden(release)
    inputs = [reference.inputs(case) for case in CASES]
    lengths = [each["input_ids"].shape[1] for each in inputs]
    offsets = [sum(lengths[:index]) for index in range(len(CASES))]
    row = {
        "input_ids": torch.cat([each["input_ids"] for each in inputs], dim=1),
        "segment_ids": torch.repeat_interleave(torch.arange(1, 5), torch.tensor(lengths))[None],
        "pixel_values": torch.cat([each["pixel_values"] for each in inputs]),
        "image_rows": torch.cat([each["image_rows"] for each in inputs]),
        "image_starts": torch.cat([each["image_starts"] + o for each, o in zip(inputs, offsets, strict=True)]),
    }
    with torch.no_grad():
        logits = reference.model(**row).logits
    for case, offset, length in zip(CASES, offsets, lengths, strict=True):
        assert (logits[:, offset : offset + length] - reference.tensors[f"{case}.logits"]).abs().max() < 5e-5
