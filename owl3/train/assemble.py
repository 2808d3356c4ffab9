"""From recipe and artifacts to what a stage runs on: the model with its starting weights, and the steps of the plan."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from transformers import PreTrainedTokenizerFast

from owl3.data.held_out import make_held_out_plans
from owl3.data.loader import Step, StepLoader
from owl3.errors import ConfigError, InputError, StaleError
from owl3.manifest import Manifest, Parent
from owl3.model.config import Owl3Config
from owl3.model.image_processing import Owl3ImageProcessor
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.planfile import Plan, Proof
from owl3.template import Release, Style
from owl3.tokens import END_OF_TEXT, TURN_END, TextTokenizer
from owl3.train.ahead import one_ahead
from owl3.train.distributed import World
from owl3.train.engine import DTYPES
from owl3.train.export import Savable
from owl3.train.lora import add_adapters
from owl3.train.stages import ModelSpec, StageConfig, TrainRecipe
from owl3.train.steps import Fingerprint


@dataclass(frozen=True)
class Start:
    """What a stage stands on."""

    plan_folder: Path
    plan: Manifest
    parents: tuple[Parent, ...]
    model_folder: Path | None  # the verified export of the stage before; None: the recipe's own start


class StepSource:
    """The steps of this rank, and what the plan says of all of them."""

    def __init__(
        self, stage: StageConfig, start: Start, workspace: Path, world: World, tokenizer: TextTokenizer
    ) -> None:
        self.plan = Plan.open(start.plan_folder)
        self.total_steps = self.plan.num_steps
        self.tokenizer = tokenizer
        self._stage = stage
        self._workspace = workspace
        self._world = world
        self.config = Owl3Config()  # until `read_for`
        self.tile_px = 0
        self.extras: tuple[Savable, ...] = ()

    def read_for(self, config: Owl3Config) -> None:
        """Take over from the model's configuration how pictures and text reach it.

        Raises:
            ConfigError: when the samples were made for a model of another kind.
        """
        release = config.release
        if self.plan.header.release != release:
            raise ConfigError(
                f"{self.plan.folder}: its samples were built with the template of release {self.plan.header.release}, "
                f"but a model with fusion {config.fusion} reads that of {release}: it would be asked in a language "
                "that it never saw; set release in the build section"
            )
        if config.text_config.vocab_size < self.tokenizer.vocab_size:
            raise ConfigError(
                f"the model has {config.text_config.vocab_size} token embeddings, the tokenizer "
                f"{self.tokenizer.vocab_size} tokens; use the tokenizer that the model was made for"
            )
        self.config = config
        self.tile_px = config.vision_config.image_size
        self.extras = (self._processor(config, release),)

    def steps_from(self, step: int) -> Iterator[Step]:
        """This rank's share of the steps, from one on."""
        return self._load(self.plan.folder, step)

    def held_out(self, folder: Path, samples: int) -> dict[str, Callable[[], Iterator[Step]]]:
        """Plan what validation measures on, and return how to go through this rank's share of it. Collective."""
        if self._world.is_main:
            make_held_out_plans(self._stage.data, self._workspace, folder, samples=samples)
        self._world.barrier()
        names = [dataset.name for dataset in self._stage.data.mixture.datasets]
        return {name: partial(self._load, folder / name, 0) for name in names}

    def _load(self, plan_folder: Path, step: int) -> Iterator[Step]:
        steps = iter(
            StepLoader(
                plan_folder,
                self._workspace,
                self.tokenizer,
                tile_px=self.tile_px,
                rank=self._world.data_rank,
                world_size=self._world.data_size,
                micro_batch_rows=self._stage.micro_batch_rows,
                start_step=step,
                num_workers=self._stage.loader_workers,
                decoder=self._stage.decoder,
                pin_memory=self._world.device.type == "cuda",
            )
        )
        return one_ahead(steps) if self._stage.loader_workers else steps

    def fingerprint(self, step: int) -> Fingerprint:
        """Of the whole step, as planned."""
        first, second = self.plan.steps[step]["fingerprint"]
        return int(first), int(second)

    def proof(self, step: int) -> Proof:
        """Of the samples of the first `step` steps, as planned."""
        return self.plan.proof(step)

    def follows(self, proof: Proof) -> bool:
        """Whether a checkpoint saw just what this plan's first steps hold."""
        try:
            self.plan.check_proof(proof)
        except StaleError:
            return False
        return True

    def _processor(self, config: Owl3Config, release: Release) -> Owl3Processor:
        """What brings questions to the model as this stage's samples were brought to it."""
        text = PreTrainedTokenizerFast(
            tokenizer_object=self.tokenizer.backend, eos_token=TURN_END, pad_token=END_OF_TEXT, padding_side="left"
        )
        cuts = any(dataset.cut > 0 for dataset in self.plan.header.datasets)
        pictures = Owl3ImageProcessor(image_size=config.vision_config.image_size, cut_enable=cuts)
        style: Style = "plain" if self.plan.header.prompt_style == "plain" else "chat"
        return Owl3Processor(pictures, text, release=release, style=style)

    @property
    def samples_per_step(self) -> int:
        """Over all ranks."""
        return self.plan.global_batch_size


def load_tokenizer(recipe: TrainRecipe, workspace: Path) -> TextTokenizer:
    """Read the tokenizer artifact that the recipe names.

    Raises:
        InputError: when it is missing or damaged.
    """
    name = recipe.tokenizer.get("name")
    if not isinstance(name, str):
        raise ConfigError(f"recipe {recipe.name}: tokenizer has no name")
    folder = workspace / "tokenizers" / name
    if not folder.is_dir():
        raise InputError(f"{folder}: no such tokenizer; run owl3 build first")
    return TextTokenizer.load(folder)


def make_model(
    recipe: TrainRecipe, stage: StageConfig, tokenizer: TextTokenizer, weights: Path | None
) -> Owl3ForConditionalGeneration:
    """Build the model: from an export or checkpoint when there is one, else as the recipe's model section says.

    Its weights have the precision that a checkpoint keeps, on every engine: what is frozen is then the same in a run
    that was resumed.
    """
    dtype = DTYPES[stage.precision]
    model = _load(weights, dtype) if weights is not None else _first_weights(recipe.model, tokenizer, dtype)
    for config in (model.config, model.config.text_config, model.config.vision_config):
        config.dtype = dtype  # loading notes it, building does not: config.json must not tell how often a run resumed
    adapt(model, stage, recipe.seed)
    return model


def adapt(model: Owl3ForConditionalGeneration, stage: StageConfig, seed: int) -> None:
    """Make a model one that a stage trains: with adapters, checkpointed layers, in step with its other ranks."""
    if stage.lora is not None:
        add_adapters(model, stage.lora, seed)
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.lockstep = stage.engine == "deepspeed" and stage.zero_stage == 3
    model.train()


def _load(source: Path | str, dtype: torch.dtype) -> Owl3ForConditionalGeneration:
    model: Owl3ForConditionalGeneration = Owl3ForConditionalGeneration.from_pretrained(str(source), dtype=dtype)
    return model


def _first_weights(spec: ModelSpec, tokenizer: TextTokenizer, dtype: torch.dtype) -> Owl3ForConditionalGeneration:
    torch.manual_seed(spec.seed)
    if spec.pretrained is not None:
        return _load(spec.pretrained, dtype)
    if spec.backbones is not None:
        from owl3.model.convert import from_backbones

        model: Owl3ForConditionalGeneration = from_backbones(
            _local(spec.backbones.language), _local(spec.backbones.vision), dtype=dtype, **spec.config
        )
        return model
    assert spec.preset is not None
    changes: dict[str, Any] = dict(spec.config)
    changes["text_config"] = {"vocab_size": tokenizer.vocab_size, **changes.get("text_config", {})}
    model = Owl3ForConditionalGeneration(Owl3Config.preset(spec.preset, **changes))
    for parameter in model.parameters():  # and not of the module: bf16 would round rotary frequencies
        parameter.data = parameter.data.to(dtype)
    return model


def _local(name: str) -> Path:
    """A folder as it is; else the Hugging Face repository of that name, fetched once.

    Raises:
        InputError: when it is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise InputError(f"{name}: neither a folder nor a repository that can be fetched: {error}") from error
