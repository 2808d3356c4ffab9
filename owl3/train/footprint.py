"""How much memory a stage needs on each rank, from shapes alone: no weights, no data, no accelerator.

    weights       2 bytes each in bf16 and fp16 (4 in fp32); all of the model, frozen parts too
    gradients     4 bytes per trained parameter: they are added up in fp32
    optimizer     12 bytes per trained parameter: fp32 weight and two moments
    activations   what the backward pass of one micro-batch keeps
    logits        of one chunk of trained tokens, with their gradient

ZeRO-1 divides the optimizer by the data-parallel ranks, ZeRO-2 gradients too, ZeRO-3 weights too. Tensor parallelism
divides the split matrices of the text model, and the activations between them. Buffers of the communication library and
fragmentation are not counted. Activations are checked against measured tensors by the tests.
"""

from dataclasses import asdict, dataclass

import torch

from owl3.errors import ConfigError
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.trainable import group_of
from owl3.train.stages import Group, StageConfig
from owl3.train.tensor_parallel import split_dim

TRAINED_SHARE = 0.5
"""Share of a row's tokens with a label, where nobody has counted them; only the logits' memory depends on it."""


@dataclass(frozen=True)
class Load:
    """What one micro-batch holds, and how the stage is trained."""

    trainable: tuple[Group, ...]
    tokens: int  # text tokens of the micro-batch
    trained_tokens: int
    tiles: int  # pictures and picture tiles
    checkpointing: bool = False
    zero_stage: int = 1
    tensor_parallel: int = 1
    data_parallel: int = 1
    bytes_per_value: int = 2  # of weights and activations

    @classmethod
    def fullest(
        cls, stage: StageConfig, ranks: int, *, zero_stage: int | None = None, tensor_parallel: int | None = None
    ) -> "Load":
        """The fullest micro-batch that a stage allows: rows of `max_tokens` text tokens and `max_tiles` pictures.

        Args:
            ranks: All of them; tensor-parallel groups share them out.
            zero_stage: Instead of the stage's own.
            tensor_parallel: Instead of the stage's own.

        Raises:
            ConfigError: the ranks do not divide into tensor-parallel groups.
        """
        split = stage.tensor_parallel if tensor_parallel is None else tensor_parallel
        if ranks % split:
            raise ConfigError(f"ranks {ranks} must be a multiple of tensor_parallel {split} (stage {stage.name})")
        tokens = stage.micro_batch_rows * stage.data.max_tokens
        return cls(
            trainable=stage.trainable,
            tokens=tokens,
            trained_tokens=int(TRAINED_SHARE * tokens),
            tiles=stage.micro_batch_rows * stage.data.max_tiles,
            checkpointing=stage.gradient_checkpointing,
            zero_stage=stage.zero_stage if zero_stage is None else zero_stage,
            tensor_parallel=split,
            data_parallel=ranks // split,
            bytes_per_value=4 if stage.precision == "fp32" else 2,
        )


@dataclass(frozen=True)
class Footprint:
    """Bytes on one rank."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters, of one rank under tensor parallelism."""

    all: int
    trained: int


def count_parameters(config: Owl3Config, trainable: tuple[Group, ...], tensor_parallel: int = 1) -> Parameters:
    """Count by building the model on the meta device, where tensors have shapes and no bytes."""
    with torch.device("meta"):
        model = Owl3ForConditionalGeneration(config)
    total = trained = 0
    for name, parameter in model.named_parameters():
        mine = parameter.numel() // (tensor_parallel if split_dim(name) is not None else 1)
        total += mine
        trained += mine if group_of(model, name) in trainable else 0
    return Parameters(total, trained)


def footprint(config: Owl3Config, load: Load) -> Footprint:
    """Estimate the memory of one rank; see the head of this file."""
    count = count_parameters(config, load.trainable, load.tensor_parallel)
    shards = load.data_parallel
    return Footprint(
        weights=count.all * load.bytes_per_value // (shards if load.zero_stage == 3 else 1),
        gradients=count.trained * 4 // (shards if load.zero_stage >= 2 else 1),
        optimizer=count.trained * 12 // shards,
        activations=activations(config, load),
        logits=_logits(config, load),
    )


def activations(config: Owl3Config, load: Load) -> int:
    """Bytes that the forward pass of a micro-batch keeps for the backward pass, logits aside.

    A layer keeps: both norms' inputs in fp32 and outputs; rotated q, k, v and the attention's output; the MLP's gate,
    up and product. Inputs of frozen matrices are not kept. With checkpointing, a layer keeps its input, and one
    layer at a time the rest.
    """
    text = config.text_config
    hidden, mlp = text.hidden_size, text.intermediate_size // load.tensor_parallel
    head = hidden // text.num_attention_heads
    heads = hidden // load.tensor_parallel
    kv_heads = text.num_key_value_heads * head // load.tensor_parallel
    learns = "language_model" in load.trainable
    value = load.bytes_per_value
    fp32_copy = 4 * hidden if value < 4 else 0  # the norm computes in fp32; a copy where the model does not
    norm = 4 * hidden + (2 * value * hidden if learns else 0)
    attention = value * (2 * heads + 2 * kv_heads)
    feed_forward = value * mlp * (3 if learns else 2)
    layer = load.tokens * (2 * norm + attention + feed_forward)
    hyper = _hyper_layer(config, load, heads, kv_heads)
    # Of all layers' norms the first half is done once: its input in fp32, and its output for the norms' weights.
    unit = fp32_copy + (value * hidden if learns else 0)
    visual = load.tiles * config.tokens_per_image * (value * (config.vision_config.hidden_size + hidden) + unit)
    if load.checkpointing:
        kept = text.num_hidden_layers * load.tokens * value * hidden
        return kept + layer + hyper + visual
    return text.num_hidden_layers * layer + len(config.hyper_layers) * hyper + visual


def _hyper_layer(config: Owl3Config, load: Load, heads: int, kv_heads: int) -> int:
    """What images add to a hyper layer: their normed features, keys and values; what is mixed, and a computed gate."""
    value = load.bytes_per_value
    features = value * config.text_config.hidden_size
    mixed = {"gated": 3, "static_gate": 2}.get(config.fusion, 0) * value * heads
    return load.tiles * config.tokens_per_image * (features + value * 4 * kv_heads) + load.tokens * mixed


def _logits(config: Owl3Config, load: Load) -> int:
    """Logits in the model's precision and in fp32, and the gradient of either, of one chunk."""
    chunk = min(load.trained_tokens, config.loss_chunk_size or load.trained_tokens)
    return chunk * config.text_config.vocab_size * 2 * (4 + (load.bytes_per_value if load.bytes_per_value < 4 else 0))
