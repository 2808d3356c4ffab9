"""The memory model against tensors that were really kept."""

import pytest
import torch
from torch import Tensor

from owl3.errors import ConfigError
from owl3.model.config import Fusion, Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.trainable import set_trainable
from owl3.recipe import RECIPES, load_recipe
from owl3.train.footprint import Load, activations, count_parameters, footprint
from owl3.train.stages import Group

STAGE_1: tuple[Group, ...] = ("projector", "visual_kv", "gate")
STAGE_2: tuple[Group, ...] = ("projector", "language_model", "visual_kv", "gate")


def small(fusion: Fusion = "gated") -> Owl3Config:
    text = {"vocab_size": 512, "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4}
    vision = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_hidden_layers": 2}
    return Owl3Config.preset(
        "tiny", fusion=fusion, hyper_layers=[1, 3], text_config={**text, **heads}, vision_config=vision
    )


def kept_bytes(config: Owl3Config, trainable: tuple[Group, ...], dtype: torch.dtype, tokens: int, images: int) -> int:
    """Bytes of distinct storages that autograd keeps for a backward pass, parameters left out."""
    torch.manual_seed(0)
    model = Owl3ForConditionalGeneration(config).to(dtype).train()
    set_trainable(model, trainable)
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    ids = torch.randint(0, 500, (1, tokens))
    labels = torch.full_like(ids, -100)
    labels[:, -1] = ids[:, -1]
    side = config.vision_config.image_size
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(
            input_ids=ids,
            labels=labels,
            pixel_values=torch.randn(images, 3, side, side),
            image_rows=torch.zeros(images, dtype=torch.int64),
            image_starts=torch.arange(images) * 6,
        )
    assert output.loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for pointer, tensor in kept.items() if pointer not in own)


@pytest.mark.parametrize("fusion", ["gated", "static_gate", "joint"])
@pytest.mark.parametrize("trainable", [STAGE_1, STAGE_2], ids=["stage 1", "stages 2 and 3"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
def test_activations_are_within_a_tenth_of_what_autograd_keeps(
    fusion: Fusion, trainable: tuple[Group, ...], dtype: torch.dtype
) -> None:
    config = small(fusion)
    measured = kept_bytes(config, trainable, dtype, tokens=512, images=4)
    load = Load(trainable, tokens=512, trained_tokens=1, tiles=4, bytes_per_value=dtype.itemsize)
    assert activations(config, load) == pytest.approx(measured, rel=0.1)


def test_parameters_are_counted_exactly() -> None:
    config = small()
    model = Owl3ForConditionalGeneration(config)
    count = count_parameters(config, STAGE_2)
    assert count.all == sum(parameter.numel() for parameter in model.parameters())
    assert count.trained == sum(parameter.numel() for parameter in set_trainable(model, STAGE_2).values())
    assert count_parameters(config, STAGE_2, tensor_parallel=2).all < count.all


def test_each_zero_stage_divides_one_part_more() -> None:
    def of(zero_stage: int) -> list[int]:
        made = footprint(small(), Load(STAGE_2, 64, 32, 2, zero_stage=zero_stage, data_parallel=4))
        return [made.weights, made.gradients, made.optimizer]

    (w1, g1, o1), (w2, g2, o2), (w3, g3, o3) = of(1), of(2), of(3)
    assert (w1, g1 // 4, o1) == (w2, g2, o2)
    assert (w2 // 4, g2, o2) == (w3, g3, o3)


def test_seven_billion_parameters_at_tp_4_fit_the_papers_32_to_40_gb() -> None:
    """Stage 2 as in the paper: 4,096 tokens, checkpointing, ZeRO-1, TP 4 (§3.1.2); 32 ranks."""
    load = Load(STAGE_2, 4096, 2048, 64, checkpointing=True, tensor_parallel=4, data_parallel=8)
    total = footprint(Owl3Config.preset("7b-240728"), load).total
    assert 15e9 < total < 40e9


def test_the_fullest_micro_batch_follows_from_the_stage_and_how_its_ranks_share_it() -> None:
    stage = load_recipe(RECIPES / "owl3-7b.yaml").stage("sft")
    load = Load.fullest(stage, ranks=32)
    assert (load.tokens, load.tiles) == (
        stage.micro_batch_rows * stage.data.max_tokens,
        stage.micro_batch_rows * stage.data.max_tiles,
    )
    assert load.tensor_parallel * load.data_parallel == 32 and load.zero_stage == stage.zero_stage
    alone = Load.fullest(stage.model_copy(update={"precision": "fp32"}), ranks=32, zero_stage=3, tensor_parallel=1)
    assert (alone.zero_stage, alone.data_parallel, alone.bytes_per_value) == (3, 32, 4)
    with pytest.raises(ConfigError, match="ranks 6 must be a multiple of tensor_parallel 4"):
        Load.fullest(stage, ranks=6, tensor_parallel=4)
