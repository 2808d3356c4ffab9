"""How to add a corpus, a filter, a builder, a benchmark, a stage, a cluster: the examples of the READMEs run."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from owl3.cli import build_app, main

ROOT = Path(__file__).parents[1]
READMES = [ROOT / "owl3" / part / "README.md" for part in ("curate", "build", "eval", "train", "cli")]


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


def _texts_with_commands() -> list[Path]:
    """Everything in which a person reads `owl3 …`: READMEs, recipes, scripts of clusters, the help of verbs."""
    folders = ("owl3", "flows", "infra", "datacards")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    kinds = {".md", ".yaml", ".sbatch", ".sh"}
    cli = (ROOT / "owl3" / "cli").glob("*.py")
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *cli, *(path for path in found if path.suffix in kinds)]


def _named_options() -> dict[tuple[str, str], str]:
    """(verb, option) -> the file that names it, of every `owl3 VERB … --option` that is written somewhere."""
    named: dict[tuple[str, str], str] = {}
    for path in _texts_with_commands():
        text = re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))
        if path.suffix == ".py":
            text = "\n".join(re.findall(r"Example: (.*?)\n\n", text, re.S))
        for verb, rest in re.findall(r"owl3 ((?:sources |tools )?[a-z]+)((?: [^`\n]*)?)", text):
            for option in re.findall(r"(?<=\s)--[a-z][a-z-]+", rest.split("; ")[0].split(" # ")[0]):
                named.setdefault((verb, option), str(path.relative_to(ROOT)))
    return named


def test_every_option_that_is_written_somewhere_exists() -> None:
    known: dict[str, set[str]] = {}

    def walk(command: Any, name: str) -> None:
        known[name] = {"--help", *(option for p in command.params for option in (*p.opts, *p.secondary_opts))}
        for child_name, child in getattr(command, "commands", {}).items():
            walk(child, f"{name} {child_name}".strip())

    walk(typer.main.get_command(build_app()), "")
    named = _named_options()
    assert len(named) > 40
    strange = [
        f"{where}: owl3 {verb} {option}"
        for (verb, option), where in sorted(named.items())
        if verb in known and option not in known[verb]
    ]
    assert not strange
