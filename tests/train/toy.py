"""A toy with the model's names and its contract, so that loop, engines and checkpoints are tested in milliseconds."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from owl3.manifest import Parent
from owl3.planfile import Proof
from owl3.train.checkpoint import Checkpoints, TrainerState, state_reader
from owl3.train.distributed import World
from owl3.train.engine import DTYPES, Engine, make_engine
from owl3.train.loop import StageRun
from owl3.train.optim import freeze, parameter_groups
from owl3.train.stages import StageConfig

PLAN = Parent(kind="plan", name="run/toy", digest="d" * 64)
ROWS_PER_STEP = 8


class Toy(nn.Module):
    """Predicts a number from three; the text part is fed by the frozen vision part."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.config = SimpleNamespace(num_vision_layers_used=0)
        self.vision_model = nn.ModuleDict({"embeddings": nn.Linear(3, 4), "head": nn.Linear(4, 1)})
        self.vision2text_model = nn.Linear(4, 4)
        self.language_model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 1))

    def forward(self, values: Tensor, labels: Tensor, num_items_in_batch: int) -> SimpleNamespace:
        """Squared error, summed over rows whose label is a number, over `num_items_in_batch`."""
        values = values.to(self.vision2text_model.weight.dtype)
        predicted = self.language_model(torch.tanh(self.vision2text_model(self.vision_model["embeddings"](values))))
        error = torch.where(labels.isnan(), 0.0, (predicted - labels.nan_to_num()) ** 2)
        return SimpleNamespace(loss=error.float().sum() / num_items_in_batch)

    def save_pretrained(self, folder: Path, state_dict: dict[str, Tensor], max_shard_size: str) -> None:
        """As `PreTrainedModel` does it, without the sharding."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state_dict, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps({"model_type": "toy"}))


@dataclass
class ToyBatch:
    """Rows of numbers with their targets."""

    inputs: dict[str, Tensor]
    rows: tuple[int, ...]
    sample_ids: tuple[tuple[str, ...], ...]
    images: int = 0

    @property
    def text(self) -> dict[str, Tensor]:
        """Every row is one token."""
        return {"segment_ids": torch.ones(len(self.rows), 1)}

    @property
    def trained_tokens(self) -> int:
        """Rows whose label is a number."""
        return int((~self.inputs["labels"].isnan()).sum())

    def to(self, device: torch.device, pixel_dtype: torch.dtype) -> dict[str, Tensor]:
        """Arguments of the toy."""
        return self.inputs


@dataclass
class ToyStep:
    """See `owl3.train.loop.Step`."""

    index: int
    trained_tokens: int
    micro_batches: list[ToyBatch]
    fingerprint: tuple[int, int]
    drops: list[Any] = field(default_factory=list)


@dataclass
class ToyOrder:
    """Steps made from their number alone, as a plan's are; `poison` puts infinity into one step."""

    rank: int = 0
    size: int = 1
    micro_batches: int = 1
    poison: int | None = None
    samples_per_step: int = ROWS_PER_STEP
    trouble: dict[int, Callable[[], None]] = field(default_factory=dict)
    """Called when a step is about to be loaded."""

    def steps_from(self, first: int) -> Iterator[ToyStep]:
        """This rank's shares, from a step on."""
        index = first
        while True:
            self.trouble.get(index, lambda: None)()
            yield self.step(index)
            index += 1

    def step(self, index: int) -> ToyStep:
        """One step: eight rows, dealt out to ranks, then to micro-batches."""
        generator = torch.Generator().manual_seed(index)
        values = torch.randn(ROWS_PER_STEP, 3, generator=generator)
        labels = values.sum(1, keepdim=True)
        if index == self.poison:
            values[3, 0] = float("inf")
        mine = range(self.rank, ROWS_PER_STEP, self.size)
        parts = [list(mine[i :: self.micro_batches]) for i in range(self.micro_batches)]
        batches = [
            ToyBatch(
                inputs={"values": values[part], "labels": labels[part]},
                rows=tuple(part),
                sample_ids=tuple((f"sample-{index}-{row}",) for row in part),
            )
            for part in parts
        ]
        share = (len(mine) * (index + 1), sum(mine))
        return ToyStep(index, ROWS_PER_STEP, batches, share)

    def fingerprint(self, step: int) -> tuple[int, int]:
        """Of the whole step."""
        return ROWS_PER_STEP * (step + 1), sum(range(ROWS_PER_STEP))

    def proof(self, step: int) -> Proof:
        """Of the steps before."""
        return Proof(plan=PLAN.digest, step=step, digest=f"first {step}", every=())


def toy_stage(**changes: Any) -> StageConfig:
    """A stage that trains projector and text part."""
    data = {"mixture": {"datasets": [{"name": "toy"}]}, "global_batch_size": 8, "steps": 6, "max_tokens": 16}
    settings: dict[str, Any] = {
        "name": "toy",
        "data": data,
        "trainable": ["projector", "language_model"],
        "learning_rate": {"max": 0.01, "min": 0.001, "groups": {"projector": {"max": 0.02, "min": 0.002}}},
        "precision": "fp32",
        "engine": "torch",
        "save_steps": 2,
        **changes,
    }
    return StageConfig.model_validate(settings)


def alone() -> World:
    """A world of one, without a process group."""
    return World(0, 1, 0, torch.device("cpu"))


def load_toy(folder: Path | None) -> Toy:
    """A fresh toy, or one with a checkpoint's weights."""
    toy = Toy()
    if folder is not None:
        toy.load_state_dict(load_file(folder / "model" / "model.safetensors"))
    return toy


def toy_run(
    folder: Path,
    stage: StageConfig | None = None,
    *,
    world: World | None = None,
    order: ToyOrder | None = None,
    total_steps: int = 6,
    limit: int = 10,
    follows: bool = True,
) -> tuple[StageRun, TrainerState]:
    """Everything a stage needs, resumed from what lies in `folder`."""
    stage, world, order = stage or toy_stage(), world or alone(), order or ToyOrder()
    checkpoints = Checkpoints(folder / "checkpoints", world, plan=PLAN, limit=limit)
    checkpoints.keeps_average = stage.ema_decay is not None
    found = checkpoints.latest(lambda proof: follows)
    engine, groups = toy_engine(stage, world, found[0] if found else None)
    if found:
        engine.load_state(state_reader(found[0]), found[1].step)
    run = StageRun(
        stage=stage,
        total_steps=total_steps,
        seed=0,
        engine=engine,
        groups=groups,
        world=world,
        checkpoints=checkpoints,
        steps_from=order.steps_from,
        order=order,
        folder=folder,
    )
    return run, found[1] if found else TrainerState()


def toy_engine(stage: StageConfig, world: World, weights: Path | None = None) -> tuple[Engine, Any]:
    """An engine around the toy."""
    toy = load_toy(weights).to(DTYPES[stage.precision])
    freeze(toy, stage.trainable)  # type: ignore[arg-type]  # it keeps the model's names
    groups = parameter_groups(toy, stage)  # type: ignore[arg-type]
    return make_engine(toy, groups, stage, world, {}), groups
