"""Released checkpoints to ours and back. The weights keep their names; what changes is what describes them.

    released    config.json flat, model_type mplugowl3; processor settings in preprocessor_config.json
    ours        config.json nested, model_type owl3; processor_config.json

Weight files are checked by their headers, tensor by tensor, against the architecture, and then copied byte by byte: a
16 GB checkpoint needs no memory.

    python -m owl3.model.convert FOLDER OUT [--to ours|released]
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open

from owl3.errors import InputError, exit_code_of
from owl3.model.backbones import config_from_backbones, from_backbones
from owl3.model.config import Fusion, Owl3Config
from owl3.model.image_processing import Owl3ImageProcessor
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor, to_transformers
from owl3.storage import atomic_folder
from owl3.tokens import TextTokenizer

__all__ = ["config_from_backbones", "convert", "from_backbones", "read_config", "weight_shapes"]

RELEASED_TYPE = "mplugowl3"
_INDEX, _SINGLE = "model.safetensors.index.json", "model.safetensors"

KNOWN_UNUSED = ("rotary_emb.inv_freq", "rotary_emb_core.inv_freq", "embeddings.position_ids")
"""Ends of names of tensors that some checkpoints store and every model computes anew."""

_TEXT_KEYS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "attention_dropout",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "use_sliding_window",
)
_VISION_KEYS = (
    "hidden_size",
    "image_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "patch_size",
)


def convert(source: Path, target: Path, to: Literal["ours", "released"] = "ours") -> Owl3Config:
    """Rewrite a checkpoint folder in the other layout; the source is not touched.

    Returns:
        The architecture, as found in the source's config and tensor names.

    Raises:
        InputError: for a folder of another architecture or layout, a missing weight file, and any tensor that is
            missing, left over or of another shape, naming it.
    """
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: exists and is not empty; give a new folder")
    described = read_config(source)
    expected = RELEASED_TYPE if to == "ours" else Owl3Config.model_type
    if described.get("model_type") != expected:
        raise InputError(
            f"{source}: holds a {described.get('model_type')!r} checkpoint; converting to {to} needs {expected!r}"
        )
    shapes = weight_shapes(source)
    config = _config_of_released(described, shapes, source) if to == "ours" else Owl3Config.from_pretrained(source)
    if not config.was_released:
        raise InputError(f"{source}: an ablation's architecture, which the released layout can't hold")
    _check_weights(config, shapes, source)
    if target.is_dir():  # empty, as looked at above
        target.rmdir()
    with atomic_folder(target) as made:  # killed half-way, the same command can be given again
        for name in _weight_files(source):
            shutil.copyfile(source / name, made / name)
        if (source / _INDEX).is_file():
            shutil.copyfile(source / _INDEX, made / _INDEX)
        if to == "ours":
            _describe_as_ours(config, source, made)
        else:
            _describe_as_released(config, source, made)
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """A checkpoint's config.json.

    Raises:
        InputError: when it is not there, or not JSON.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: missing; give a checkpoint folder")
    try:
        described = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not JSON: {error}") from error
    if not isinstance(described, dict):
        raise InputError(f"{path}: not a mapping")
    return described


def weight_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor, from the weight files' headers.

    Raises:
        InputError: when a weight file is missing or damaged, naming it.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for name in _weight_files(folder):
        try:
            with safe_open(folder / name, "pt") as weights:
                shapes |= {key: tuple(weights.get_slice(key).get_shape()) for key in weights.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise InputError(f"{folder / name}: damaged weight file: {error}") from error
    return shapes


def _weight_files(folder: Path) -> list[str]:
    index = folder / _INDEX
    names = sorted(set(json.loads(index.read_bytes())["weight_map"].values())) if index.is_file() else [_SINGLE]
    for name in names:
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: weight file missing ({len(names)} expected); fetch it again")
    return names


def _config_of_released(described: Mapping[str, Any], shapes: Mapping[str, Any], source: Path) -> Owl3Config:
    """A flat config, and an architecture that only the tensors' names tell."""
    for key in ("hidden_size", "num_hidden_layers", "hyper_layers", "vision_config"):
        if key not in described:
            raise InputError(f"{source / 'config.json'}: has no {key}")
    fusion: Fusion = "joint"
    if any(name.endswith("self_attn.gate_proj.0.weight") for name in shapes):
        fusion = "gated"
    elif any(name.endswith("self_attn.gate") for name in shapes):
        fusion = "static_gate"
    text = {key: described[key] for key in _TEXT_KEYS if key in described}
    if described.get("rope_scaling"):
        raise InputError(
            f"{source / 'config.json'}: rope_scaling: images know only plain positions; it can't be converted"
        )
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": described.get("rope_theta", 1e6)}
    return Owl3Config(
        fusion=fusion,
        projector="linear" if "vision2text_model.weight" in shapes else "mlp",
        hyper_layers=described["hyper_layers"],
        text_config=text,
        vision_config=dict(described["vision_config"]),
        tie_word_embeddings=bool(described.get("tie_word_embeddings", False)),
        vision_batch_size=described.get("vision_batch_size", 16),
        dtype=described.get("torch_dtype", described.get("dtype")),
    )


def _check_weights(config: Owl3Config, shapes: Mapping[str, tuple[int, ...]], source: Path) -> None:
    """Every tensor used or known to be unused, none missing, all of the right shape."""
    with torch.device("meta"):
        model = Owl3ForConditionalGeneration._from_config(config)
    wanted = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings and "language_model.lm_head.weight" not in shapes:
        del wanted["language_model.lm_head.weight"]
    missing = sorted(wanted.keys() - shapes.keys())
    extra = sorted(name for name in shapes.keys() - wanted.keys() if not name.endswith(KNOWN_UNUSED))
    wrong = sorted(name for name in wanted.keys() & shapes.keys() if wanted[name] != shapes[name])
    if missing:
        raise InputError(f"{source}: {len(missing)} tensors missing, the first is {missing[0]}")
    if extra:
        raise InputError(f"{source}: {len(extra)} tensors that {config.fusion} has no use for, the first is {extra[0]}")
    if wrong:
        name = wrong[0]
        raise InputError(f"{source}: {name} is {shapes[name]}, the configuration says {wanted[name]}")


def _describe_as_ours(config: Owl3Config, source: Path, target: Path) -> None:
    config.architectures = [Owl3ForConditionalGeneration.__name__]
    config.save_pretrained(target)
    tokenizer = TextTokenizer.load(source)
    Owl3Processor(
        Owl3ImageProcessor(image_size=config.vision_config.image_size),
        to_transformers(tokenizer),
        release=config.release,
    ).save_pretrained(target)
    if (source / "generation_config.json").is_file():
        shutil.copyfile(source / "generation_config.json", target / "generation_config.json")


def _describe_as_released(config: Owl3Config, source: Path, target: Path) -> None:
    text, vision = config.text_config, config.vision_config
    module = "modeling_mplugowl3.mPLUGOwl3Model"
    described = {key: getattr(text, key) for key in _TEXT_KEYS} | {
        "architectures": ["mPLUGOwl3Model"],
        "auto_map": {
            "AutoConfig": "configuration_mplugowl3.mPLUGOwl3Config",
            "AutoModel": module,
            "AutoModelForCausalLM": module,
        },
        "model_type": RELEASED_TYPE,
        "hyper_layers": list(config.hyper_layers),
        "rope_theta": text.rope_parameters["rope_theta"],
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": str(config.dtype or "float32").removeprefix("torch."),
        "use_cache": True,
        "vision_config": {key: getattr(vision, key) for key in _VISION_KEYS} | {"model_type": "siglip_vision_model"},
    }
    processor = {
        "image_processor_type": "mPLUGOwl3ImageProcessor",
        "image_size": vision.image_size,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    for name, content in (("config.json", described), ("preprocessor_config.json", processor)):
        (target / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def main() -> int:
    """Entry point of the process that `owl3 convert` starts."""
    parser = argparse.ArgumentParser(prog="owl3 convert")
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--to", choices=("ours", "released"), default="ours")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    return exit_code_of(lambda: _convert(options))


def _convert(options: argparse.Namespace) -> None:
    config = convert(options.source, options.target, options.to)
    facts = {"target": str(options.target), "fusion": config.fusion, "hyper_layers": list(config.hyper_layers)}
    layers = ", ".join(map(str, config.hyper_layers)) or "none"
    line = f"{options.target}: {options.to}, fusion {config.fusion}, hyper layers {layers}"
    sys.stdout.write((json.dumps(facts) if options.json else line) + "\n")


if __name__ == "__main__":
    sys.exit(main())
