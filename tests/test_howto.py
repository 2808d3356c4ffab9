"""How to add a corpus, a filter, a builder, a benchmark, a stage, a cluster: the examples of the READMEs run."""

import re
import shlex
from pathlib import Path

import pytest

from owl3.cli import main

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "owl3" / part / "README.md" for part in ("curate", "build", "eval", "train")]


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_the_examples_of_a_folder_run(path: Path) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)
    assert examples
    for number, example in enumerate(examples):
        exec(compile(example, f"{path}, example {number}", "exec"), {})


def test_every_place_that_contributing_sends_to_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for path in re.findall(r"`([a-z0-9/_.]+\.(?:md|py))`", text, re.I):
        assert (ROOT / path).is_file(), path


def test_every_make_target_that_contributing_names_is_there() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {word for line in re.findall(r"make ([a-z -]+)", text) for word in line.split()[:1]}
    assert named <= targets


def test_a_copied_cluster_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (command,) = re.findall(r"^(owl3 estimate .*)$", (ROOT / "infra" / "README.md").read_text(encoding="utf-8"), re.M)
    words = shlex.split(command)[1:]
    monkeypatch.chdir(ROOT)
    assert all((ROOT / word).is_file() for word in words if word.endswith(".yaml"))
    copied = tmp_path / "mine.yaml"
    copied.write_text((ROOT / words[words.index("--cluster") + 1]).read_text())
    no_stages = ["stages=[]", "eval=null", "--cluster", str(copied), "--urls", "1M", "--json"]
    assert main(["estimate", words[1], *no_stages]) == 0
