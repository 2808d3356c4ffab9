"""`owl3 bench card`: one pass of each stage on this GPU, at the real model's shapes in bf16.

    python -m owl3.bench card --out FOLDER [recipe=flows/recipes/owl3-7b.yaml] [rounds=5]

Weights are random and pictures are noise: neither changes what a pass costs. A pass is the fullest that the recipe
allows (`micro_batch_rows` rows of `max_tokens` tokens and `max_tiles` pictures), forward and backward, with the stage's
trainable groups and gradient checkpointing, on one card without tensor parallelism. The optimizer is left out: ZeRO
spreads its state over ranks that are not here. Beside the measured peak stands what `owl3 bench memory` computes for
the same pass.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from owl3.bench.memory import PRESET_OF
from owl3.bench.meter import interleaved, peak_bytes
from owl3.errors import ConfigError
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.recipe import RECIPES, load_recipe
from owl3.train.distributed import World
from owl3.train.engine import DTYPES
from owl3.train.flops import StepFlops
from owl3.train.footprint import Load, footprint
from owl3.train.optim import freeze
from owl3.train.stages import StageConfig

GIB = 1 << 30
TOKENS_PER_SAMPLE = {"pretrain": 30}
"""Of a caption; samples of the other stages are taken to fill a quarter of a row."""


@dataclass(frozen=True)
class Pass:
    """One micro-batch of one stage on one device."""

    samples: int
    tokens: int
    images: int
    seconds: float
    peak_bytes: int  # beyond the weights
    expected_bytes: int  # the same, as computed
    mfu: float | None


def run(out: Path, recipe: str = "", rounds: int = 5) -> dict[str, Any]:
    """Measure every stage, and write `card.json` and `card.md`.

    Raises:
        ConfigError: there is no GPU, or the recipe is not one of the shipped ones.
    """
    if not torch.cuda.is_available():
        raise ConfigError("bench card needs a GPU; owl3 bench memory computes what a card would have to hold")
    loaded = load_recipe(Path(recipe) if recipe else RECIPES / "owl3-7b.yaml")
    if loaded.name not in PRESET_OF:
        raise ConfigError(f"recipe {loaded.name}: only the shipped ones are known here: {', '.join(PRESET_OF)}")
    device = torch.device("cuda", 0)
    config = Owl3Config.preset(PRESET_OF[loaded.name])
    passes = {stage.name: measure(config, stage, device, rounds) for stage in loaded.stages}
    name = torch.cuda.get_device_name(device)
    result = {
        "card": name,
        "model": loaded.name,
        "passes": {name: vars(one) for name, one in passes.items()},
    }
    (out / "card.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    (out / "card.md").write_text(table(name, loaded.name, passes), encoding="utf-8")
    return result


def measure(config: Owl3Config, stage: StageConfig, device: torch.device, rounds: int) -> Pass:
    """Time the stage's fullest pass on a device."""
    dtype = DTYPES[stage.precision]
    with device:
        model = Owl3ForConditionalGeneration._from_config(config, dtype=dtype).train()
    freeze(model, stage.trainable)
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    samples, batch = _batch(config, stage, device, dtype)
    tokens, images = batch["input_ids"].numel(), len(batch["pixel_values"])

    def work() -> None:
        torch.autograd.backward(model(**batch, num_items_in_batch=tokens).loss)
        model.zero_grad(set_to_none=True)

    seconds = interleaved({"pass": work}, rounds, device)["pass"]
    load = Load(
        trainable=stage.trainable,
        tokens=tokens,
        trained_tokens=tokens,
        tiles=images,
        checkpointing=stage.gradient_checkpointing,
        bytes_per_value=dtype.itemsize,
    )
    expected = footprint(config, load)
    mfu = StepFlops.of(config, stage, World(0, 1, 0, device)).utilisation(tokens, images, seconds)
    return Pass(
        samples=samples,
        tokens=tokens,
        images=images,
        seconds=seconds,
        peak_bytes=peak_bytes(work, device),
        # Here gradients have the weights' precision: what adds them up in fp32 is DeepSpeed, which is not in this pass.
        expected_bytes=expected.gradients * dtype.itemsize // 4 + expected.activations + expected.logits,
        mfu=mfu,
    )


def _batch(
    config: Owl3Config, stage: StageConfig, device: torch.device, dtype: torch.dtype
) -> tuple[int, dict[str, Tensor]]:
    """Full rows of equal samples, their pictures spread evenly; every token has a label."""
    rows, length, tiles = stage.micro_batch_rows, stage.data.max_tokens, stage.data.max_tiles
    sample_tokens = min(length, TOKENS_PER_SAMPLE.get(stage.name, max(1, length // 4)))
    place = torch.arange(length, device=device)
    ids = torch.randint(config.text_config.vocab_size, (rows, length), device=device)
    side = config.vision_config.image_size
    return rows * -(-length // sample_tokens), {
        "input_ids": ids,
        "labels": ids,
        "segment_ids": (place // sample_tokens + 1).repeat(rows, 1),
        "position_ids": (place % sample_tokens).repeat(rows, 1),
        "pixel_values": torch.randn(rows * tiles, 3, side, side, device=device, dtype=dtype),
        "image_rows": torch.arange(rows, device=device).repeat_interleave(tiles),
        "image_starts": (torch.arange(tiles, device=device) * length // tiles).repeat(rows),
    }


def table(card: str, model: str, passes: dict[str, Pass]) -> str:
    """The passes in Markdown."""
    columns = "stage | samples/s | tokens/s | pictures/s | MFU (goal 0.45) | peak GiB beyond weights | computed GiB"
    lines = [f"# {model} on one {card}", "", f"| {columns} |", "| --- | --: | --: | --: | --: | --: | --: |"]
    for name, one in passes.items():
        rates = [one.samples / one.seconds, one.tokens / one.seconds, one.images / one.seconds]
        mfu = "unknown card" if one.mfu is None else f"{one.mfu:.2f}"
        sizes = f"{one.peak_bytes / GIB:.2f} | {one.expected_bytes / GIB:.2f}"
        lines.append(f"| {name} | {' | '.join(f'{rate:.1f}' for rate in rates)} | {mfu} | {sizes} |")
    return "\n".join(lines) + "\n"
