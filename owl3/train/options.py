"""DeepSpeed's settings that belong to a machine: memory and communication, from `infra/deepspeed/*.json`. No torch."""

import json
from pathlib import Path
from typing import Any

from owl3.errors import ConfigError

_INFRA_KEYS = frozenset({"zero_optimization", "communication_data_type", "aio", "comms_logger", "flops_profiler"})
_RECIPE_KEYS = {
    "train_batch_size": "data.global_batch_size",
    "train_micro_batch_size_per_gpu": "micro_batch_rows",
    "gradient_accumulation_steps": "data.global_batch_size",
    "gradient_clipping": "optimizer.clip_norm",
    "optimizer": "optimizer",
    "scheduler": "learning_rate",
    "bf16": "precision",
    "fp16": "precision",
    "tensor_parallel": "tensor_parallel",
}


def read_options(path: Path | None) -> dict[str, Any]:
    """Read an `infra/deepspeed/*.json`: memory and communication only.

    Raises:
        ConfigError: for a key that the recipe owns (naming it), or that is neither's.
    """
    if path is None:
        return {}
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; infra/deepspeed/ has some")
    try:
        options = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError(f"{path}: holds a {type(options).__name__}; give DeepSpeed's options as one JSON object")
    for key in options:
        if key in _RECIPE_KEYS:
            raise ConfigError(f"{path}: {key} belongs to the recipe ({_RECIPE_KEYS[key]}); remove it here")
        if key not in _INFRA_KEYS:
            raise ConfigError(f"{path}: unknown key {key!r}; known are {', '.join(sorted(_INFRA_KEYS))}")
    if "stage" in options.get("zero_optimization", {}):
        raise ConfigError(f"{path}: zero_optimization.stage belongs to the recipe (zero_stage); remove it here")
    return dict(options)
