"""A model folder that holds exactly the weights that were trained, in the form `transformers` loads.

Every tensor is hashed as it lies in memory, written, read back from disk and hashed again. A stage starts only from
such an export, and only when its files still match the manifest: the hand-over that recipes of shell commands lack.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import safe_open
from torch import Tensor, nn

from owl3.config import digest_of
from owl3.errors import InputError
from owl3.manifest import Manifest, read_manifest, verify_files

MAX_FILE_BYTES = "5GB"


class Savable(Protocol):
    """A processor or tokenizer: what text and pictures have to go through before the model."""

    def save_pretrained(self, save_directory: str) -> Any:
        """Write its files."""


def tensor_digest(tensor: Tensor) -> str:
    """Hash a tensor's dtype, shape and bytes."""
    data = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(f"{data.dtype} {tuple(data.shape)} ".encode())
    if data.numel():
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def weights_digest(digests: Mapping[str, str]) -> str:
    """One digest for a whole model: of its tensors' digests under their names."""
    return digest_of(dict(digests))


def digests_on_disk(folder: Path) -> dict[str, str]:
    """Hash every tensor of a model folder's safetensors files, as read back from disk."""
    digests = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it has no iterator)
                digests[name] = tensor_digest(tensors.get_tensor(name))
    return digests


def write_model(folder: Path, model: nn.Module, weights: Mapping[str, Tensor], extras: Iterable[Savable]) -> str:
    """Write a `transformers` folder and prove that it holds `weights`.

    Args:
        folder: To be made.
        model: A `PreTrainedModel`, for its configuration; its own tensors may be partitioned and are not read.
        weights: The whole model, on the CPU.
        extras: Processor and whatever else belongs beside the weights.

    Returns:
        The weights' digest.

    Raises:
        InputError: when what was read back differs; naming the first such tensor.
    """
    model.save_pretrained(folder, state_dict=dict(weights), max_shard_size=MAX_FILE_BYTES)  # type: ignore[operator]
    for extra in extras:
        extra.save_pretrained(str(folder))
    live = {name: tensor_digest(tensor) for name, tensor in weights.items()}
    written = digests_on_disk(folder)
    for name in sorted({*live, *written}):
        if live.get(name) != written.get(name):
            raise InputError(f"{folder}: tensor {name} on disk is not the one in memory; the export is not usable")
    return weights_digest(live)


def verified_model(stage_folder: Path) -> tuple[Path, Manifest]:
    """Return a finished stage's model folder after checking every byte of it against the stage's manifest.

    Raises:
        InputError: when the stage is not finished, or its export was changed; naming the first such file.
    """
    manifest = read_manifest(stage_folder)
    model_files = tuple(entry for entry in manifest.files if entry.path.startswith("model/"))
    if not model_files:
        raise InputError(f"{stage_folder}: its manifest lists no exported model; run its stage again")
    findings = verify_files(stage_folder, manifest.model_copy(update={"files": model_files}))
    if findings:
        raise InputError(f"{findings[0]}; this export is not what the stage trained, so nothing may start from it")
    return stage_folder / "model", manifest
