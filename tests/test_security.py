"""What infra/README.md promises under "Threats", as far as it can be read off the code or tried on it."""

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import yaml

from owl3.config import load_yaml
from owl3.errors import ConfigError
from owl3.recipe import Recipe
from owl3.yamlread import PlainLoader

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("owl3", "flows") for path in (ROOT / folder).rglob("*.py"))

FORBIDDEN = {
    "eval": "runs what it is given",
    "exec": "runs what it is given",
    "os.system": "is a shell",
    "os.popen": "is a shell",
    "subprocess.getoutput": "is a shell",
    "pickle.load": "runs what a file says",
    "pickle.loads": "runs what a file says",
    "torch.load": "reads pickles; weights are safetensors",
    "joblib.load": "reads pickles",
    "yaml.load": "makes any object; yaml.safe_load makes data",
    "yaml.unsafe_load": "makes any object",
    "yaml.full_load": "makes objects",
    "shutil.unpack_archive": "writes where an archive says",
}
METHODS = {"extractall": "writes where an archive says", "extract": "writes where an archive says"}
FLAGS = {("shell", True), ("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True)}


def calls(words: Collection[str]) -> Iterator[tuple[Path, ast.Call, str]]:
    """Every call in files that hold one of these words, with the last part of what is called."""
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        if any(word in text for word in words):  # parsing all of them takes seconds
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call):
                    yield path, node, getattr(node.func, "attr", getattr(node.func, "id", ""))


def test_no_code_is_run_that_came_as_data() -> None:
    """No pickle, no shell, no eval, no archive that says where it is unpacked."""
    found = []
    told = [f"{name}(" for name in [*FORBIDDEN, *METHODS]] + [f"{word}={value}" for word, value in FLAGS]
    for path, call, last in calls(told):
        name = ast.unparse(call.func)
        flags = {(word.arg, word.value.value) for word in call.keywords if isinstance(word.value, ast.Constant)}
        if name == "yaml.load" and ast.unparse(call.args[1]) == PlainLoader.__name__:
            continue
        why = FORBIDDEN.get(name) or METHODS.get(last) or flags & FLAGS
        if why:
            found.append(f"{path.relative_to(ROOT)}:{call.lineno}: {name}: {why}")
    assert not found
    assert issubclass(PlainLoader, yaml.SafeLoader), "the one reader of our own makes data alone"


def test_nothing_of_ours_listens_to_the_whole_world_unless_told() -> None:
    everywhere = [
        path for path in SOURCES if re.search(r"""["'](0\.0\.0\.0|::)["']""", path.read_text(encoding="utf-8"))
    ]
    assert not everywhere
    servers = ("TCPSite", "start_server", "run_app")
    found = [(path, _said(call)) for path, call, last in calls(servers) if last in servers]
    assert found
    for path, said in found:
        assert any("127.0.0.1" in word or "host" in word or "ADDRESS" in word for word in said), path


def _said(call: ast.Call) -> list[str]:
    return [ast.unparse(argument) for argument in [*call.args, *(word.value for word in call.keywords)]]


@pytest.mark.parametrize("tag", ["object/apply", "object/new", "name"])
def test_a_recipe_runs_no_code(tag: str, tmp_path: Path) -> None:
    path, call = tmp_path / "recipe.yaml", f"!!python/{tag}:os.mkdir [{tmp_path / 'broken-in'}]"
    path.write_text(f"name: {call}\n")
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        load_yaml(path, Recipe)
    with pytest.raises(ConfigError, match="name=!!python"):
        load_yaml(ROOT / "flows" / "recipes" / "demo.yaml", Recipe, [f"name={call}"])
    assert not (tmp_path / "broken-in").exists()


def test_no_field_of_a_recipe_asks_for_a_secret() -> None:
    """Credentials come from the environment: what a recipe has no room for, no manifest and no card can tell."""
    shape = Recipe.model_json_schema()
    names = {name for part in [shape, *shape["$defs"].values()] for name in part.get("properties", {})}
    assert names
    assert not [name for name in names if any(word in name for word in ("secret", "password", "credential", "api_key"))]


def test_what_is_committed_holds_no_credential() -> None:
    for path in sorted((ROOT / "infra").rglob("*.y*ml")) + sorted((ROOT / "flows").rglob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            for key, value in _leaves(document):
                if any(word in key.upper() for word in ("SECRET", "PASSWORD", "ACCESS_KEY")):
                    assert not isinstance(value, str) or value.startswith("${"), f"{path}: {key}"


def _leaves(node: object, key: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from _leaves(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _leaves(value, key)
    else:
        yield key, node
