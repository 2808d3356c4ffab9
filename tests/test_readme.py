"""The README's commands run: `make` targets exist, `owl3` lines end with 0 on the workspace that a short demo left."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from owl3.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def _commands(program: str) -> list[str]:
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.M | re.S)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith(program + " ")]


@pytest.mark.parametrize("command", [*_commands("make"), *sorted(set(re.findall(r"`(make [a-z]+)`", README)))])
def test_every_make_target_of_the_readme_exists(command: str) -> None:
    done = subprocess.run([*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.xdist_group("demo")
@pytest.mark.usefixtures("demo_account")
@pytest.mark.parametrize("command", _commands("owl3"))
def test_every_owl3_command_of_the_readme_runs(
    command: str, demo_workspace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OWL3_WORKSPACE", str(demo_workspace))
    words = [
        str(demo_workspace / word.removeprefix("workspace").lstrip("/")) if word.split("/")[0] == "workspace" else word
        for word in shlex.split(command)[1:]
    ]
    monkeypatch.chdir(ROOT)
    code = main(words)
    assert code == 0, capsys.readouterr().err


def test_the_tree_of_the_readme_is_true() -> None:
    """Every module and folder of the library's first level stands in the annotated tree, and nothing else."""
    tree = README.split("## The tree")[1].split("## ")[0]
    told = set(re.findall(r"\b([a-z_0-9]+)(?:/|\.py)", tree)) - {
        "owl3",
        "flows",
        "datacards",
        "infra",
        "tests",
        "recipes",
    }
    there = {
        path.stem
        for path in (ROOT / "owl3").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").is_file()) and not path.name.startswith("__")
    }
    assert told == there
