"""What a recipe may not say of a stage is refused in one line, before anything is started."""

import pytest

from owl3.errors import ConfigError
from owl3.recipe import RECIPES, load_recipe


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("precision=fp16", r"demo\.yaml: stages\.0\.precision: Input should be 'fp32' or 'bf16'"),
        ("zero_stage=4", r"demo\.yaml: stages\.0\.zero_stage: Input should be 1, 2 or 3"),
    ],
)
def test_a_setting_that_no_stage_has_is_refused_by_file_and_key(change: str, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load_recipe(RECIPES / "demo.yaml", [f"stages.pretrain.{change}"])
