"""`owl3 build` and `owl3 lint`: exit codes, one JSON object, and errors that say what to do."""

import json
from pathlib import Path
from typing import Any

import pytest

from owl3.build.config import TokenizerConfig
from owl3.build.tokenizer import make_tokenizer
from owl3.cli import main
from tests.build.world import curated_row, write_shards

RECIPE = """
name: tiny
tokenizer: {name: tiny, shards: [photos], vocab_size: 400}
build:
  - {name: pairs, builder: caption, shards: [photos], tokenizer: tiny}
  - {name: refs, builder: interleaved_caption, shards: [photos], tokenizer: tiny, store: references}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with one shard set, and a recipe beside it."""
    root = tmp_path / "w"
    write_shards(root, "photos", [curated_row(number) for number in range(30)])
    (tmp_path / "r.yaml").write_text(RECIPE)
    return root


def owl3(workspace: Path, *arguments: str) -> int:
    """Run the command line in this process."""
    return main([*arguments, "--workspace", str(workspace)])


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The object on the last line of stdout."""
    found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_build_makes_the_tokenizer_and_every_set(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = str(workspace.parent / "r.yaml")
    assert owl3(workspace, "build", recipe, "--materialize", "--json") == 0
    result = last_json(capsys)
    assert set(result) == {"pairs", "refs", "refs-bytes"}
    assert result["pairs"]["counts"] == {"seen": 30, "kept": 30, "dropped": {}}
    assert owl3(workspace, "build", recipe, "--only", "pairs") == 0
    assert "30" in capsys.readouterr().out


def test_dry_run_writes_nothing(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert owl3(workspace, "build", str(workspace.parent / "r.yaml"), "--dry-run", "--json") == 0
    assert last_json(capsys)["pairs"] == {"builder": "caption", "count": "all", "done": False}
    assert not (workspace / "samples").exists()


def test_a_set_that_is_not_in_the_recipe_is_an_error(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert owl3(workspace, "build", str(workspace.parent / "r.yaml"), "--only", "nobody") == 2
    assert "has no set 'nobody'; it has: pairs, refs" in capsys.readouterr().err


def test_a_misspelt_key_is_named_with_the_right_one(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert owl3(workspace, "build", str(workspace.parent / "r.yaml"), "build.refs.max_use=3") == 2
    assert "max_use" in capsys.readouterr().err


def test_lint_ends_with_1_when_it_finds_something(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_tokenizer(TokenizerConfig(name="tiny", shards=("photos",), vocab_size=400), workspace)
    assert owl3(workspace, "build", str(workspace.parent / "r.yaml"), "--only", "pairs") == 0
    folder = workspace / "samples/pairs"
    assert owl3(workspace, "lint", str(folder), "--json") == 0
    assert last_json(capsys)["ok"]
    assert owl3(workspace, "lint", str(folder), "--sample", "5") == 0
    assert "95% sure" in capsys.readouterr().out
    tar = folder / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:9000])
    assert owl3(workspace, "lint", str(folder), "--json") == 1
    report = last_json(capsys)
    assert not report["ok"]
    assert {"lost", "manifest-file"} <= {finding["rule"] for finding in report["findings"]}
