"""What may stand in infra/deepspeed/*.json, and what belongs to the recipe."""

import json
from pathlib import Path
from typing import Any

import pytest

from owl3.errors import ConfigError
from owl3.train.options import read_options

INFRA = Path(__file__).parents[2] / "infra" / "deepspeed"


@pytest.mark.parametrize("path", sorted(INFRA.glob("*.json")), ids=lambda path: path.name)
def test_the_shipped_files_hold_memory_and_communication_only(path: Path) -> None:
    assert "zero_optimization" in read_options(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"bf16": {"enabled": True}}, r"bf16 belongs to the recipe \(precision\)"),
        ({"gradient_clipping": 1.0}, r"gradient_clipping belongs to the recipe \(optimizer.clip_norm\)"),
        ({"train_batch_size": 8}, r"train_batch_size belongs to the recipe \(data.global_batch_size\)"),
        ({"zero_optimization": {"stage": 2}}, r"zero_optimization.stage belongs to the recipe \(zero_stage\)"),
        ({"zero_optimisation": {}}, "unknown key 'zero_optimisation'"),
    ],
)
def test_a_key_of_the_recipe_or_of_nobody_is_refused_by_name(
    tmp_path: Path, content: dict[str, Any], message: str
) -> None:
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=message):
        read_options(path)
