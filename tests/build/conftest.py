"""A workspace with a tokenizer, and shard sets on demand."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from owl3.build.config import TokenizerConfig
from owl3.build.tokenizer import make_tokenizer
from tests.build.world import curated_row, write_shards


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny tokenizer, trained once."""
    workspace = tmp_path_factory.mktemp("tokenizer")
    write_shards(workspace, "words", [curated_row(number) for number in range(40)])
    make_tokenizer(TokenizerConfig(name="tiny", shards=("words",), vocab_size=400), workspace)
    return workspace / "tokenizers" / "tiny"


@pytest.fixture
def workspace(tmp_path: Path, tokenizer_folder: Path) -> Path:
    """A workspace with a tokenizer and nothing else."""
    (tmp_path / "tokenizers").mkdir()
    (tmp_path / "tokenizers" / "tiny").symlink_to(tokenizer_folder)
    return tmp_path


@pytest.fixture
def photos(workspace: Path) -> Callable[..., Path]:
    """Write shard set `photos`: `photos(50)`, or `photos(50, **changes of every row)`."""

    def write(count: int, name: str = "photos", first: int = 0, **changes: Any) -> Path:
        return write_shards(workspace, name, [curated_row(number, **changes) for number in range(first, first + count)])

    return write
