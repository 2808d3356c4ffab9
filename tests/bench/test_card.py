"""The GPU benchmark's pass, on a tiny model and the CPU."""

from pathlib import Path

import pytest
import torch
from train.world import TINY, recipe

from owl3.bench.card import measure, run, table
from owl3.errors import ConfigError


def test_a_pass_holds_full_rows_and_is_told_in_a_table() -> None:
    from owl3.model.config import Owl3Config

    stage = recipe(micro_batch_rows=2).stages[0]
    one = measure(Owl3Config.preset("tiny", **TINY["config"]), stage, torch.device("cpu"), rounds=1)  # type: ignore[dict-item]
    assert (one.samples, one.tokens, one.images) == (10, 256, 16)  # captions of 30 tokens, the last one of 8
    assert one.seconds > 0 and one.mfu is None
    text = table("CPU", "tiny", {"pretrain": one})
    assert f"| pretrain | {10 / one.seconds:.1f} |" in text


def test_without_a_gpu_it_says_what_there_is_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="needs a GPU; owl3 bench memory"):
        run(tmp_path)
