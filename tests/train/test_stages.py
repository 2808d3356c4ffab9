"""What a recipe may not say of a stage is refused in one line, before anything is started."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from owl3.errors import ConfigError
from owl3.recipe import RECIPES, load_recipe
from owl3.train import assemble


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("precision=fp16", r"demo\.yaml: stages\.0\.precision: Input should be 'fp32' or 'bf16'"),
        ("zero_stage=4", r"demo\.yaml: stages\.0\.zero_stage: Input should be 1, 2 or 3"),
        ("decoder=cv2", r"demo\.yaml: stages\.0\.decoder: Input should be 'pillow' or 'opencv'"),
    ],
)
def test_a_setting_that_no_stage_has_is_refused_by_file_and_key(change: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_recipe(RECIPES / "demo.yaml", [f"stages.pretrain.{change}"])


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
