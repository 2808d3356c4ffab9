"""Operations and parameters of a recipe's stages, counted on a model that has shapes and no weights.

A process of its own (`python -m owl3.estimate.shapes RECIPE.json`), because it needs torch; prints one JSON object.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch

from owl3.errors import ConfigError, exit_code_of
from owl3.model.config import Owl3Config
from owl3.train.distributed import World
from owl3.train.flops import StepFlops
from owl3.train.footprint import Load, count_parameters, footprint
from owl3.train.stages import ModelSpec, StageConfig, load_recipe

PRESET_OF = {"Qwen/Qwen2-7B": "7b-240728", "Qwen/Qwen2-1.5B": "2b-241014", "Qwen/Qwen2-0.5B": "1b-241014"}
"""The architecture that is built from a text backbone, so that nothing has to be downloaded to count it."""


def config_of(model: ModelSpec) -> Owl3Config:
    """The configuration of the model that a recipe starts from.

    Raises:
        ConfigError: it starts from weights whose shapes are not known here.
    """
    if model.preset is not None:
        return Owl3Config.preset(model.preset, **model.config)
    if model.pretrained is not None and Path(model.pretrained).is_dir():
        given: Owl3Config = Owl3Config.from_pretrained(model.pretrained)
        return given
    if model.backbones is not None:
        language, vision = Path(model.backbones.language), Path(model.backbones.vision)
        if language.is_dir() and vision.is_dir():
            return Owl3Config.from_backbones(language, vision, **model.config)
        if model.backbones.language in PRESET_OF:
            return Owl3Config.preset(PRESET_OF[model.backbones.language], **model.config)
    known = ", ".join(PRESET_OF)
    raise ConfigError(f"model: its shapes are not known here; give a preset, folders, or one of {known} as `language`")


def stage_shape(config: Owl3Config, stage: StageConfig, ranks: int) -> dict[str, Any]:
    """What a stage computes per token and picture, keeps per checkpoint, and needs on each rank."""
    flops = StepFlops.of(config, stage, World(0, 1, 0, torch.device("cpu")))
    parameters = count_parameters(config, stage.trainable)
    tensor_parallel = stage.tensor_parallel if ranks % stage.tensor_parallel == 0 else 1
    load = Load.fullest(stage, ranks, tensor_parallel=tensor_parallel)
    return {
        "flops_per_token": flops.per_token,
        "flops_per_picture": flops.per_image,
        "parameters": parameters.all,
        "trained": parameters.trained,
        # bf16 weights of all, and 12 bytes of fp32 weight and moments of what learns
        "checkpoint_bytes": 2 * parameters.all + 12 * parameters.trained,
        "rank_bytes": footprint(config, load).total,
    }


def print_shapes(path: Path, ranks: int) -> None:
    """Print the shapes of all stages of a resolved recipe."""
    recipe = load_recipe(path)
    config = config_of(recipe.model)
    shapes = {stage.name: stage_shape(config, stage, ranks) for stage in recipe.stages}
    sys.stdout.write(json.dumps(shapes) + "\n")


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: print_shapes(Path(sys.argv[1]), int(sys.argv[2]))))
