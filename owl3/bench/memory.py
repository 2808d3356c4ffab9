"""`owl3 bench memory`: what each stage of the 1B, 2B and 7B models needs on every rank, computed from shapes.

    python -m owl3.bench memory --out FOLDER [recipe=flows/recipes/owl3-7b.yaml] [ranks=32]

Each recipe's stages are taken with their own micro-batch, the fullest there can be (rows of `max_tokens` text tokens
and `max_tiles` pictures), under ZeRO 1 to 3 and tensor parallelism of 1 and of the recipe. How well the figures hold is
tested against measured tensors at small size (tests/train/test_footprint.py).
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from owl3.errors import ConfigError
from owl3.model.config import Owl3Config
from owl3.recipe import RECIPES, load_recipe
from owl3.train.footprint import Load, footprint
from owl3.train.stages import StageConfig

GIB = 1 << 30
PRESET_OF = {"owl3-7b": "7b-240728", "owl3-2b": "2b-241014", "owl3-1b": "1b-241014"}
"""The architecture that a shipped recipe builds from its backbones."""


def run(out: Path, recipe: str = "", ranks: int = 32) -> dict[str, Any]:
    """Print and write the table; one row per recipe, stage and way to share the work.

    Raises:
        ConfigError: `ranks` does not divide, or the recipe is not one of the shipped ones.
    """
    paths = [Path(recipe)] if recipe else [RECIPES / f"{name}.yaml" for name in sorted(PRESET_OF)]
    rows = []
    for path in paths:
        loaded = load_recipe(path)
        if loaded.name not in PRESET_OF:
            raise ConfigError(f"{path}: only the shipped recipes are known here: {', '.join(PRESET_OF)}")
        config = Owl3Config.preset(PRESET_OF[loaded.name])
        for stage in loaded.stages:
            for tensor_parallel in sorted({1, stage.tensor_parallel}):
                for zero_stage in (1, 2, 3) if tensor_parallel == 1 else (1,):
                    way = {"zero": zero_stage, "tp": tensor_parallel}
                    rows.append({"model": loaded.name, "stage": stage.name, **way, **_gib(config, stage, ranks, **way)})
    (out / "memory.md").write_text(_markdown(rows, ranks), encoding="utf-8")
    return {"ranks": ranks, "rows": rows}


def _gib(config: Owl3Config, stage: StageConfig, ranks: int, *, zero: int, tp: int) -> dict[str, float]:
    """Parts of the footprint, in GiB."""
    load = Load.fullest(stage, ranks, zero_stage=zero, tensor_parallel=tp)
    made = footprint(config, load)
    return {part: round(size / GIB, 2) for part, size in asdict(made).items()} | {"total": round(made.total / GIB, 1)}


def _markdown(rows: list[dict[str, Any]], ranks: int) -> str:
    columns = list(rows[0])
    lines = [
        f"# Memory of one rank of {ranks}, in GiB",
        "",
        "Computed by `owl3 bench memory` from shapes; communication buffers and fragmentation are not counted.",
        "",
        f"| {' | '.join(columns)} |",
        f"| {' | '.join('---' if column in ('model', 'stage') else '--:' for column in columns)} |",
        *(f"| {' | '.join(str(row[column]) for column in columns)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"
