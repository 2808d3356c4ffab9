"""What a recipe may not say of a stage is refused in one line, before anything is started."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from owl3.errors import ConfigError
from owl3.recipe import RECIPES, load_recipe
from owl3.train import assemble, engine


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("precision=fp8", r"demo\.yaml: stages\.0\.precision: Input should be 'fp32', 'bf16' or 'fp16'"),
        ("zero_stage=4", r"demo\.yaml: stages\.0\.zero_stage: Input should be 1, 2 or 3"),
        ("decoder=cv2", r"demo\.yaml: stages\.0\.decoder: Input should be 'pillow' or 'opencv'"),
    ],
)
def test_a_setting_that_no_stage_has_is_refused_by_file_and_key(change: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_recipe(RECIPES / "demo.yaml", [f"stages.pretrain.{change}"])


def test_what_a_machine_cannot_compute_is_refused_by_what_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_cpu_has_fp16", lambda: False)
    with pytest.raises(ConfigError, match=r"precision fp16: this machine has no GPU.* set precision: fp32"):
        engine.check_precision("fp16", torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100-SXM2-32GB")
    for capability, has_bf16 in (((7, 0), False), ((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        engine.check_precision("fp16", torch.device("cuda", 0))
        if has_bf16:
            engine.check_precision("bf16", torch.device("cuda", 0))
        else:
            with pytest.raises(ConfigError, match="Tesla V100-SXM2-32GB has no bf16; set precision: fp16"):
                engine.check_precision("bf16", torch.device("cuda", 0))


def test_the_decoder_of_a_stage_is_the_loaders(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = load_recipe(RECIPES / "demo.yaml", ["stages.pretrain.decoder=opencv", "stages.pretrain.loader_workers=0"])
    given: dict[str, Any] = {}

    def loader(*_: object, **how: Any) -> list[object]:
        given.update(how)
        return []

    monkeypatch.setattr(assemble, "StepLoader", loader)
    world = SimpleNamespace(data_rank=0, data_size=1, device=torch.device("cpu"))
    source = SimpleNamespace(_workspace=Path(), tokenizer=None, tile_px=28, _world=world, _stage=stage.stages[0])
    assert list(assemble.StepSource._load(cast("assemble.StepSource", source), Path(), 0)) == []
    assert given["decoder"] == "opencv"
