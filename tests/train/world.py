"""A small real world: samples, a tokenizer, plans, and a recipe of three stages for the tiny model."""

import json
from pathlib import Path
from typing import Any

from data.conftest import TILE_PX, conversation, write_samples

from owl3.data.plan import make_plan
from owl3.manifest import Counts, write_manifest
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny
from owl3.train.stages import TrainRecipe

STAGES = ("pretrain", "multi_image", "sft")

TINY = {
    "preset": "tiny",
    "config": {
        "fusion": "joint",
        "hyper_layers": [1, 2],
        "text_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
        },
        "vision_config": {
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": TILE_PX,
            "patch_size": 14,
        },
    },
}


def recipe(steps: int = 6, **changes: Any) -> TrainRecipe:
    """Three stages, each from the one before; `changes` go into every stage."""
    stages = []
    for number, name in enumerate(STAGES):
        datasets = [{"name": "single"}] if number == 0 else [{"name": "single"}, {"name": "multi"}]
        stage: dict[str, Any] = {
            "name": name,
            "parent": STAGES[number - 1] if number else None,
            "data": {
                "mixture": {"datasets": datasets, "max_epochs": 500},
                "global_batch_size": 4,
                "steps": steps,
                "max_tokens": 128,
                "max_tiles": 8,
                "seed": number,
            },
            "trainable": ["projector", "visual_kv", "language_model"],
            "learning_rate": {"max": 0.01, "min": 0.001, "groups": {"projector": {"max": 0.02}}},
            "precision": "fp32",
            "engine": "torch",
            "loader_workers": 0,
            "save_steps": 2,
        }
        stages.append({**stage, **changes})
    data = {"name": "tiny", "seed": 1, "tokenizer": {"name": "words"}, "model": TINY, "stages": stages}
    return TrainRecipe.model_validate(data)


def write_recipe(path: Path, made: TrainRecipe) -> Path:
    """Save a recipe as the resolved JSON that the training process reads."""
    path.write_text(json.dumps(made.model_dump(mode="json")))
    return path


def make_world(workspace: Path, made: TrainRecipe) -> TextTokenizer:
    """Write everything that training stands on."""
    tokenizer = train_tiny(["a red blue green circle square stands left of what is it?"] * 3, 400)
    folder = workspace / "tokenizers" / "words"
    save_tokenizer(tokenizer, folder)
    write_manifest(folder, kind="tokenizer", name="words", counts=Counts(seen=1, kept=1))
    single = [conversation("single", n, 1, 3) for n in range(12)]
    multi = [conversation("multi", n, n % 3, 2 + n % 4) for n in range(12)]  # every third has no picture
    write_samples(workspace, tokenizer, "single", single)
    write_samples(workspace, tokenizer, "multi", multi)
    for stage in made.stages:
        make_plan(stage.data, workspace, run_name=made.name, stage=stage.name)
    return tokenizer
