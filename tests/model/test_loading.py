"""Checkpoints: ours and the released ones, both ways, strictly."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    AutoProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    SiglipConfig,
    SiglipModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from owl3.errors import ConfigError, InputError, Owl3Error
from owl3.model.backbones import default_hyper_layers, from_backbones
from owl3.model.config import PRESETS, Fusion, Owl3Config
from owl3.model.convert import convert, read_config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import train_tiny
from tests.model.conftest import FUSIONS, logits_of, make_sample, tiny_config, tiny_model

TOKENIZER = train_tiny(["what is it"], 330)


def save(folder: Path, fusion: Fusion = "joint", **options: Any) -> Path:
    """A whole checkpoint folder of ours."""
    model = tiny_model(fusion)
    model.save_pretrained(folder, **options)
    Owl3Processor.of(model.config, TOKENIZER).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("fusion", FUSIONS)
def test_saving_and_loading_through_auto_classes_gives_the_same_model(tmp_path: Path, fusion: Fusion) -> None:
    save(tmp_path, fusion)
    model, sample = AutoModelForImageTextToText.from_pretrained(tmp_path), make_sample(8, [1])
    assert type(model) is Owl3ForConditionalGeneration
    assert torch.equal(logits_of(model.eval(), sample), logits_of(tiny_model(fusion), sample))
    config, known = AutoConfig.from_pretrained(tmp_path), tiny_config(fusion)
    for name in ("fusion", "projector", "hyper_layers", "vision_feature_layer", "tie_word_embeddings"):
        assert getattr(config, name) == getattr(known, name)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor) is Owl3Processor
    assert processor.release == {"gated": "240728", "static_gate": "241014", "joint": "241101"}[fusion]


def test_names_in_our_files_are_the_released_ones(tmp_path: Path) -> None:
    save(tmp_path, "gated")
    names = load_file(tmp_path / "model.safetensors").keys()
    for name in (
        "language_model.model.embed_tokens.weight",
        "language_model.model.layers.0.self_attn.v_kv_proj.weight",
        "language_model.model.layers.2.self_attn.gate_proj.0.bias",
        "language_model.lm_head.weight",
        "vision2text_model.weight",
        "vision_model.embeddings.patch_embedding.weight",
        "vision_model.encoder.layers.1.self_attn.out_proj.weight",
        "vision_model.head.probe",
    ):
        assert name in names


def test_a_checkpoint_in_shards_and_bf16_loads(tmp_path: Path) -> None:
    save(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    model = Owl3ForConditionalGeneration.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    model.save_pretrained(tmp_path / "half")
    again = Owl3ForConditionalGeneration.from_pretrained(tmp_path / "half")
    assert again.dtype == torch.bfloat16
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_released_layout_converts_both_ways_and_keeps_every_byte(tmp_path: Path, fusion: Fusion) -> None:
    save(tmp_path / "ours", fusion)
    convert(tmp_path / "ours", tmp_path / "released", "released")
    flat = json.loads((tmp_path / "released/config.json").read_text())
    assert flat["model_type"] == "mplugowl3" and flat["hyper_layers"] == [1, 3] and flat["hidden_size"] == 32
    config = convert(tmp_path / "released", tmp_path / "back")
    assert config.fusion == fusion
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "released", "back")]
    assert files[0] == files[1] == files[2]
    model, sample = AutoModelForImageTextToText.from_pretrained(tmp_path / "back"), make_sample(9, [2])
    assert torch.equal(logits_of(model.eval(), sample), logits_of(tiny_model(fusion), sample))
    assert AutoProcessor.from_pretrained(tmp_path / "back").release == config.release


def test_a_tied_head_is_not_stored_and_comes_back_tied(tmp_path: Path) -> None:
    model = Owl3ForConditionalGeneration(tiny_config("static_gate", tie_word_embeddings=True))
    model.save_pretrained(tmp_path)
    assert "language_model.lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    again = Owl3ForConditionalGeneration.from_pretrained(tmp_path)
    assert again.language_model.lm_head.weight is again.language_model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("preset", "tensors", "billions"), [("7b-240728", 805, 8.061), ("7b-241101", 799, 8.073), ("1b-241014", 752, 0.924)]
)
def test_presets_have_the_published_sizes(preset: str, tensors: int, billions: float) -> None:
    with torch.device("meta"):
        model = Owl3ForConditionalGeneration(Owl3Config.preset(preset))
    stored = dict(model.state_dict())
    if model.config.tie_word_embeddings:
        del stored["language_model.lm_head.weight"]
    assert len(stored) == tensors
    assert round(sum(tensor.numel() for tensor in stored.values()) / 1e9, 3) == billions


def test_every_preset_makes_a_configuration_that_survives_json() -> None:
    for name in PRESETS:
        config = Owl3Config.preset(name)
        assert Owl3Config.from_dict(json.loads(config.to_json_string())).to_dict() == config.to_dict()
    with pytest.raises(ConfigError, match="unknown model preset '3b'; one of 1b-241014"):
        Owl3Config.preset("3b")


# ------------------------------------------------------------------------------------------------------- backbones


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`qwen2`, `siglip` (the whole model) and `vision` (its half) folders."""
    folder = tmp_path_factory.mktemp("backbones")
    config = tiny_config()
    Qwen2ForCausalLM(Qwen2Config(**config.text_config.to_dict())).save_pretrained(folder / "qwen2")
    SiglipVisionModel(SiglipVisionConfig(**config.vision_config.to_dict())).save_pretrained(folder / "vision")
    text = {"vocab_size": 9, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2}
    both = SiglipConfig(text_config=text, vision_config=config.vision_config.to_dict())
    SiglipModel(both).save_pretrained(folder / "siglip")
    return folder


@pytest.mark.parametrize("vision", ["vision", "siglip"])
def test_a_new_model_keeps_its_backbones_and_reads_images_as_it_reads_text(backbones: Path, vision: str) -> None:
    model = from_backbones(backbones / "qwen2", backbones / vision, fusion="gated", projector="linear")
    text = Qwen2ForCausalLM.from_pretrained(backbones / "qwen2")
    ids = torch.arange(9)[None]
    with torch.no_grad():
        torch.testing.assert_close(model.eval()(ids).logits, text(ids).logits, atol=1e-4, rtol=1e-4)
    assert model.config.hyper_layers == default_hyper_layers(3)
    attention = model.language_model.model.layers[0].self_attn
    token = torch.randn(32)
    k, v = attention.k_proj(token).unflatten(0, (2, 8)), attention.v_proj(token).unflatten(0, (2, 8))
    both = attention.v_kv_proj(token).unflatten(0, (2, 2, 8))  # (kv head, {K, V}, d)
    torch.testing.assert_close(both[:, 0], k)
    torch.testing.assert_close(both[:, 1], v)
    vision_model = SiglipVisionModel.from_pretrained(backbones / vision)
    for name, weight in vision_model.state_dict().items():
        assert torch.equal(model.vision_model.state_dict()[name], weight)


def test_default_hyper_layers_are_241101s() -> None:
    assert default_hyper_layers(28) == [7, 15, 23, 26]
    assert default_hyper_layers(2) == [1, 2]


def test_a_configuration_from_backbones_needs_no_weights(backbones: Path) -> None:
    config = Owl3Config.from_backbones(backbones / "qwen2", backbones / "vision", hyper_layers=[2], fusion="gated")
    assert (config.text_config.hidden_size, config.vision_config.hidden_size, config.hyper_layers) == (32, 16, [2])


def test_swapped_backbones_are_named(backbones: Path) -> None:
    with pytest.raises(InputError, match="holds a 'siglip_vision_model' checkpoint, expected qwen2"):
        from_backbones(backbones / "vision", backbones / "qwen2")


def test_fresh_vision_positions_can_be_made_larger() -> None:
    stock = Owl3ForConditionalGeneration(tiny_config(vision_config={"image_size": 140}))
    large = Owl3ForConditionalGeneration(tiny_config(vision_config={"image_size": 140}, vision_position_init_std=0.9))
    weights = [model.vision_model.embeddings.position_embedding.weight.std() for model in (stock, large)]
    assert 0.2 < weights[0] < 0.3 and 0.8 < weights[1] < 1.0


# ------------------------------------------------------------------------------------------------------- bad folders


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    save(tmp_path / "ours", max_shard_size="30KB")
    next(iter(sorted((tmp_path / "ours").glob("model-00002*.safetensors")))).unlink()
    with pytest.raises(InputError, match="model-00002"):
        Owl3ForConditionalGeneration.from_pretrained(tmp_path / "ours")
    with pytest.raises(InputError, match=r"model-00002.*: weight file missing \(\d expected\); fetch it again"):
        convert(tmp_path / "ours", tmp_path / "released", "released")


def _without(folder: Path, name: str, replacement: dict[str, torch.Tensor] | None = None) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights | (replacement or {}), folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_left_over_and_misshapen_weights_are_named(tmp_path: Path) -> None:
    name = "language_model.model.layers.0.self_attn.v_kv_proj.weight"
    cases = {
        "missing": ({}, "1 missing weights, the first is language_model"),
        "extra": ({name: tiny_model().state_dict()[name], "x.y": torch.zeros(1)}, "1 unexpected weights.* x.y"),
        "shape": ({name: torch.zeros(3, 32)}, "1 mismatched weights.*v_kv_proj.weight"),
    }
    for case, (replacement, message) in cases.items():
        save(tmp_path / case)
        _without(tmp_path / case, name, replacement)
        with pytest.raises(InputError, match=message):
            Owl3ForConditionalGeneration.from_pretrained(tmp_path / case)
        with pytest.raises(InputError, match=r"x\.y" if case == "extra" else "v_kv_proj"):
            convert(tmp_path / case, tmp_path / "out", "released")


def test_checkpoints_of_another_architecture_are_refused(tmp_path: Path, backbones: Path) -> None:
    with pytest.raises(InputError, match="holds a 'qwen2' checkpoint; converting to ours needs 'mplugowl3'"):
        convert(backbones / "qwen2", tmp_path / "out")
    with pytest.raises(InputError, match=r"config\.json: missing; give a checkpoint folder"):
        convert(tmp_path, tmp_path / "out")
    save(tmp_path / "ours", "gated")
    config = json.loads((tmp_path / "ours/config.json").read_text())
    (tmp_path / "ours/config.json").write_text(json.dumps(config | {"fusion": "joint"}))
    with pytest.raises(InputError, match=r"unexpected weights.*gate_proj"):
        Owl3ForConditionalGeneration.from_pretrained(tmp_path / "ours")
    with pytest.raises(InputError, match=r"tensors that joint has no use for.*gate_proj"):
        convert(tmp_path / "ours", tmp_path / "out", "released")


def test_a_damaged_weight_file_is_named(tmp_path: Path) -> None:
    save(tmp_path / "ours")
    weights = tmp_path / "ours/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    with pytest.raises(InputError, match=r"model\.safetensors: damaged weight file"):
        convert(tmp_path / "ours", tmp_path / "out", "released")
    with pytest.raises(InputError, match="can't be loaded"):
        Owl3ForConditionalGeneration.from_pretrained(tmp_path / "ours")


def test_converting_never_writes_over_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "ours")
    shutil.copytree(tmp_path / "ours", tmp_path / "out")
    with pytest.raises(InputError, match="exists and is not empty"):
        convert(tmp_path / "ours", tmp_path / "out", "released")


def test_a_conversion_that_ended_half_way_leaves_no_folder_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "ours")
    (tmp_path / "out").mkdir()
    with monkeypatch.context() as full_disk:
        full_disk.setattr("owl3.model.convert._describe_as_released", Mock(side_effect=OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            convert(tmp_path / "ours", tmp_path / "out", "released")
    convert(tmp_path / "ours", tmp_path / "out", "released")
    assert read_config(tmp_path / "out")["model_type"] == "mplugowl3"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("rope_scaling", {"type": "yarn", "factor": 4.0}, "rope_scaling: images know only plain positions"),
        ("use_sliding_window", True, "use_sliding_window: hyper attention has no sliding window"),
    ],
)
def test_settings_that_we_can_not_keep_are_refused_not_dropped(
    key: str, value: object, message: str, tmp_path: Path
) -> None:
    save(tmp_path / "ours")
    convert(tmp_path / "ours", tmp_path / "released", "released")
    path = tmp_path / "released" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(Owl3Error, match=message):
        convert(tmp_path / "released", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hyper_layers": [1, 9]}, r"hyper_layers: 9 is not one of layers 1\.\.3"),
        ({"vision_feature_layer": 1}, "vision_feature_layer 1 must lie in"),
        ({"text_config": {"num_attention_heads": 3}}, "hidden_size 32 must be a multiple of num_attention_heads 3"),
        ({"text_config": {"num_key_value_heads": 3}}, "must be a multiple of num_key_value_heads 3"),
        ({"text_config": {"attention_dropout": 0.1}}, "attention_dropout: hyper attention has none"),
        ({"text_config": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1.0}}}, "rope_type"),
        ({"text_config": {"use_sliding_window": True}}, "use_sliding_window"),
    ],
)
def test_impossible_configurations_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny_config(**changes)
