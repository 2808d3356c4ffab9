"""What a stage of training is, as a recipe says it. No torch: flows, launch and the CLI read it too.

What the order of samples depends on (mixture, global batch, packing, cut, seed) is the plan's and stands in `data`;
what the arithmetic depends on (groups, rates, optimizer, precision) stands here. How memory and communication are
handled stands in `infra/deepspeed/*.json`, where it changes no result.
"""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from owl3.config import Config, load_yaml
from owl3.data.plan import PlanConfig
from owl3.errors import ConfigError
from owl3.manifest import MANIFEST_NAME, Manifest, find_current, read_manifest

Group = Literal["projector", "visual_kv", "gate", "language_model", "vision_model"]
"""Disjoint parts of the model that a stage trains or freezes, as `owl3.model.trainable` tells them apart. The text
model without what hyper attention adds to it is `language_model`, so the paper's "full language model" is
`language_model, visual_kv, gate`."""


Precision = Literal["fp32", "bf16", "fp16"]
"""Of weights and activations. What learns is kept in fp32 beside them, and gradients are added up in fp32."""

LoraTarget = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""Linear layers of the text model: of its attention, and of its MLP."""


class Rate(Config):
    """A learning rate that falls from `max` to `min` over the stage."""

    max: float = Field(gt=0)
    min: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _falls(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min {self.min} is above max {self.max}")
        return self


class LearningRate(Rate):
    """The stage's rate, its warm-up and shape, and other rates for single groups."""

    warmup_ratio: float = Field(default=0.03, ge=0, lt=1)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    groups: dict[Group, Rate] = Field(default_factory=dict)


class Optimizer(Config):
    """AdamW. Norm weights, biases and gate vectors are never decayed."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.05, ge=0)
    clip_norm: float = Field(default=1.0, ge=0)  # 0 turns clipping off; the norm is still measured


class Spikes(Config):
    """When a loss counts as a spike: so many standard deviations above the last `window` steps."""

    z_score: float = Field(default=6.0, gt=0)
    window: int = Field(default=100, ge=10)


class Validation(Config):
    """Loss on samples that no stage trains on: the share `held_out` of every data set in `data`."""

    eval_steps: int = Field(ge=1)
    samples: int = Field(default=256, ge=1)  # of each data set, at most


class Lora(Config):
    """Train adapters of low rank in the language model's matrices instead of the matrices (peft); merged at export."""

    rank: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)  # what an adapter adds is scaled by alpha / rank
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[LoraTarget, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


_MEANS = frozenset(
    {
        "micro_batch_rows",
        "gradient_checkpointing",
        "zero_stage",
        "tensor_parallel",
        "loader_workers",
        "save_total_limit",
        "keep_best",
        "log_steps",
        "spikes",
        "validation",
        "save_async",
    }
)
"""Keys of a stage that change how fast and in how much memory it gets there (and the last bits), not what it learns."""


class StageConfig(Config):
    """One stage: which samples (`data`), which parts learn, how fast, and what is kept."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    parent: str | None = None  # the stage whose verified export this one starts from; None: the model's own start
    data: PlanConfig
    trainable: tuple[Group, ...] = Field(min_length=1)
    learning_rate: LearningRate
    optimizer: Optimizer = Optimizer()
    micro_batch_rows: int = Field(default=1, ge=1)  # packed rows in one forward pass; changes speed, not results
    precision: Precision = "bf16"  # fp16: for cards without bf16 (V100, T4)
    gradient_checkpointing: bool = False
    engine: Literal["deepspeed", "torch"] = "deepspeed"
    zero_stage: Literal[1, 2, 3] = 1
    tensor_parallel: int = Field(default=1, ge=1)
    threads: int = Field(default=1, ge=1)  # torch threads per process: on CPU, sums depend on it
    loader_workers: int = Field(default=1, ge=0)
    decoder: Literal["pillow", "opencv"] = "pillow"  # opencv: twice as fast, values differ by 1 or 2 of 255
    save_steps: int = Field(default=1000, ge=1)
    save_total_limit: int = Field(default=2, ge=1)
    save_async: bool = False  # write checkpoints beside the next steps, from a copy in memory
    keep_best: str | None = Field(default=None, pattern=r"^[^/]+/[^/]+$")  # TASK/FIGURE: its best outlives the limit
    log_steps: int = Field(default=1, ge=1)
    spikes: Spikes = Spikes()
    validation: Validation | None = None
    z_loss: float = Field(default=0.0, ge=0)  # weight of the softmax denominators' squared logarithm; in the loss shown
    ema_decay: float | None = Field(default=None, gt=0, lt=1)  # per step; the averaged weights are what is exported
    lora: Lora | None = None  # `language_model` in trainable then means its adapters

    @model_validator(mode="after")
    def _rates_are_of_trained_groups(self) -> Self:
        idle = sorted(set(self.learning_rate.groups) - set(self.trainable))
        if idle:
            raise ValueError(f"learning_rate.groups names {', '.join(idle)}, which trainable does not hold")
        if len(set(self.trainable)) != len(self.trainable):
            raise ValueError("trainable names a group twice")
        if self.engine == "torch" and self.tensor_parallel > 1:
            raise ValueError("tensor_parallel above 1 needs engine: deepspeed")
        if self.engine == "torch" and self.precision == "fp16":
            raise ValueError("precision fp16 needs engine: deepspeed, which scales the loss")
        if self.tensor_parallel > 1 and self.zero_stage != 1:
            raise ValueError("tensor_parallel above 1 goes with zero_stage 1")
        if self.validation is not None and not self.data.held_out:
            raise ValueError("validation needs samples to measure on: give data.held_out")
        if self.lora is not None:
            if "language_model" not in self.trainable:
                raise ValueError("lora has no effect unless trainable holds language_model")
            if self.tensor_parallel > 1 or self.zero_stage == 3:
                raise ValueError("lora goes with tensor_parallel 1 and zero_stage 1 or 2")
        return self

    def meaning(self) -> dict[str, Any]:
        """What decides the weights that the stage ends with; a run can be resumed with the rest changed."""
        return {key: value for key, value in self.model_dump(mode="json").items() if key not in _MEANS}

    def rate(self, group: Group) -> Rate:
        """The learning rate of a group: its own, else the stage's."""
        return self.learning_rate.groups.get(group, self.learning_rate)


class Backbones(Config):
    """Pretrained parts to start from: folders or Hugging Face names."""

    language: str
    vision: str


class ModelSpec(Config):
    """Where the first stage's weights come from: a preset with fresh weights, backbones, or a whole Owl3 model.

    A preset's text and vision sizes can be changed by `config`; its vocabulary is always the tokenizer's.
    """

    preset: str | None = None  # shapes and fresh weights, by a name in owl3.model.config.PRESETS
    backbones: Backbones | None = None
    pretrained: str | None = None  # folder or Hugging Face name of an Owl3 model
    config: dict[str, Any] = Field(default_factory=dict)  # keys of Owl3Config to change: fusion, hyper_layers, …
    seed: int = 0  # of the fresh weights

    @model_validator(mode="after")
    def _has_one_start(self) -> Self:
        given = [key for key in ("preset", "backbones", "pretrained") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of preset, backbones, pretrained (got {', '.join(given) or 'none'})")
        if self.pretrained is not None and self.config:
            raise ValueError("config has no effect on a pretrained model; remove it")
        return self


class TrainRecipe(Config):
    """The part of a resolved recipe that the training process reads; other sections are not its business."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)

    name: str
    seed: int = 0
    tokenizer: dict[str, Any]
    model: ModelSpec
    stages: tuple[StageConfig, ...] = Field(min_length=1)
    eval: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _the_best_is_looked_for(self) -> Self:
        for stage in self.stages:
            if stage.keep_best and not (self.eval or {}).get("tasks"):
                raise ValueError(f"stage {stage.name!r}: keep_best has no effect without evaluations: give eval.tasks")
        return self

    @model_validator(mode="after")
    def _parents_come_first(self) -> Self:
        seen: set[str] = set()
        for stage in self.stages:
            if stage.name in seen:
                raise ValueError(f"two stages are called {stage.name!r}")
            if stage.parent is not None and stage.parent not in seen:
                raise ValueError(f"stage {stage.name!r}: parent {stage.parent!r} is not a stage before it")
            seen.add(stage.name)
        return self

    def stage(self, name: str) -> StageConfig:
        """Look a stage up by name.

        Raises:
            ConfigError: naming the stages there are.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise ConfigError(f"recipe {self.name}: no stage {name!r} (stages: {', '.join(s.name for s in self.stages)})")

    def meaning(self, stage: StageConfig) -> dict[str, Any]:
        """What a stage's manifest and `run.json` hold of the recipe: all that decides its weights."""
        data: dict[str, Any] = {"seed": self.seed, "stage": stage.meaning()}
        if stage.parent is None:
            data["model"] = self.model.model_dump(mode="json")
        return data


def load_recipe(path: Path) -> TrainRecipe:
    """Read a resolved recipe (JSON is YAML)."""
    return load_yaml(path, TrainRecipe)


def finished(recipe: TrainRecipe, stage: StageConfig, workspace: Path) -> Manifest | None:
    """Return the stage's manifest when there is nothing left to do: saves starting a process to find that out.

    Raises:
        InputError, StaleError: as `find_current`; or the plan or the parent stage is missing.
    """
    folder = stage_folder(workspace, recipe.name, stage.name)
    if not (folder / MANIFEST_NAME).is_file():
        return None
    parents = [read_manifest(plan_folder(workspace, recipe.name, stage.name))]
    if stage.parent is not None:
        parents.append(read_manifest(stage_folder(workspace, recipe.name, stage.parent)))
    return find_current(folder, recipe.meaning(stage), parents)


def stage_folder(workspace: Path, run: str, stage: str) -> Path:
    """Where a stage's checkpoints, metrics and export lie."""
    return workspace / "runs" / run / stage


def plan_folder(workspace: Path, run: str, stage: str) -> Path:
    """Where a stage's plan lies."""
    return workspace / "plans" / run / stage
