"""A checkpoint of somebody hostile runs nothing: neither as a pickle, nor as code that its configuration points to."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor

from owl3.errors import InputError
from owl3.model.convert import convert
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import train_tiny
from tests.model.conftest import tiny_model


class BreaksIn:
    """What the pickle holds: a call."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self._folder),)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A whole checkpoint folder of ours."""
    folder, model = tmp_path / "checkpoint", tiny_model("joint")
    model.save_pretrained(folder)
    Owl3Processor.of(model.config, train_tiny(["what is it"], 330)).save_pretrained(folder)
    return folder


LOADERS: list[Callable[[Path], Any]] = [
    Owl3ForConditionalGeneration.from_pretrained,
    AutoModelForImageTextToText.from_pretrained,
    lambda folder: convert(folder, folder.parent / "converted", to="released"),
]


@pytest.mark.parametrize("load", LOADERS, ids=["model", "auto", "convert"])
def test_a_pickle_in_place_of_weights_is_refused_unread(load: Callable[[Path], Any], checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    broken_in = checkpoint.parent / "broken-in"
    torch.save({"lm_head.weight": BreaksIn(broken_in)}, checkpoint / "pytorch_model.bin")
    with pytest.raises(InputError, match="safetensors"):
        load(checkpoint)
    assert not broken_in.exists()


def test_code_beside_the_weights_is_not_run(checkpoint: Path) -> None:
    broken_in = checkpoint.parent / "broken-in"
    (checkpoint / "evil.py").write_text(f"import os\nos.mkdir({str(broken_in)!r})\n")
    for name, classes in (
        ("config.json", {"AutoConfig": "evil.Config", "AutoModelForImageTextToText": "evil.Model"}),
        ("processor_config.json", {"AutoProcessor": "evil.Processor"}),
    ):
        path = checkpoint / name
        path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": classes}))
    assert type(AutoModelForImageTextToText.from_pretrained(checkpoint)) is Owl3ForConditionalGeneration
    assert type(AutoProcessor.from_pretrained(checkpoint)) is Owl3Processor
    assert not broken_in.exists()
