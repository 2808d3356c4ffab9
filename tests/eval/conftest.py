"""A tiny benchmark on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from eval_oracle import COLOURS, Oracle
from PIL import Image


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def make_benchmark(tmp_path: Path) -> Callable[[int], Path]:
    """Make a scenes-single folder of N plain pictures, colours in turn."""

    def make(count: int) -> Path:
        folder = tmp_path / f"bench{count}"
        folder.mkdir()
        rows = []
        for index in range(count):
            colour = list(COLOURS)[index % 3]
            Image.new("RGB", (8, 8), COLOURS[colour]).save(folder / f"{index}.png")
            row = {"id": f"q{index}", "media": [f"{index}.png"], "question": "What colour?", "answer": colour}
            rows.append(row | {"options": list(COLOURS), "type": "colour", "group": f"s{index}"})
        (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return make


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder
