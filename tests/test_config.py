"""A recipe's mistakes are told in one line: which file, which key, what instead."""

from pathlib import Path

import pytest
from pydantic import Field

from owl3.config import Config, canonical_json, load_yaml
from owl3.errors import ConfigError


class _Stage(Config):
    name: str
    learning_rate: float = 1e-3


class _Recipe(Config):
    name: str
    stages: tuple[_Stage, ...] = ()


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


def test_an_unknown_key_names_the_file_and_the_nearest_key(tmp_path: Path) -> None:
    path = _write(tmp_path, "name: x\nstages: [{name: a, learning_rte: 1}]")
    with pytest.raises(ConfigError, match=r"r\.yaml: unknown key 'stages\.0\.learning_rte'; did you mean 'learning_r"):
        load_yaml(path, _Recipe)


def test_an_unknown_key_like_no_other_is_told_what_there_is(tmp_path: Path) -> None:
    path = _write(tmp_path, "name: x\nstages: [{name: a, colour: 1}]")
    with pytest.raises(ConfigError, match=r"unknown key 'stages\.0\.colour'; there are: learning_rate, name"):
        load_yaml(path, _Recipe)


class _Data(Config):
    steps: int = 1


class _Deep(Config):
    name: str = ""
    log_steps: int = 1
    data: _Data = _Data()


class _Outer(Config):
    stages: tuple[_Deep, ...] = ()


def test_a_key_of_a_section_below_is_told_with_its_way(tmp_path: Path) -> None:
    """`log_steps` looks alike, but `data.steps` is the very word."""
    path = _write(tmp_path, "stages: [{name: a, steps: 3}]")
    with pytest.raises(ConfigError, match=r"unknown key 'stages\.0\.steps'; did you mean 'stages\.0\.data\.steps'\?"):
        load_yaml(path, _Outer)


class _Named(Config):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    steps: int = Field(default=1, gt=0)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: a b/c", "name: write it in lower-case letters, digits and - . _, not 'a b/c'"),
        ("name: x\nsteps: -5", "steps: Input should be greater than 0, not -5"),
        (
            "name: x\nsteps: ten",
            "steps: Input should be a valid integer, unable to parse string as an integer, not 'ten'",
        ),
        ("steps: 5", "name: Field required"),
        ("name: [a]", "name: Input should be a valid string"),
    ],
)
def test_a_wrong_value_is_told_with_its_key_and_what_stands_there(text: str, told: str, tmp_path: Path) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(ConfigError) as raised:
        load_yaml(path, _Named)
    assert str(raised.value) == f"{path}: {told}"


def test_a_key_that_stands_twice_is_refused_where_it_stands(tmp_path: Path) -> None:
    """YAML's own reader lets the last one win: the first would be a setting that has no effect, in silence."""
    path = _write(tmp_path, "name: x\nstages:\n  - name: a\n    learning_rate: 1\n    name: b\n")
    with pytest.raises(ConfigError, match=r"line 5, column 5: the key 'name' stands here twice"):
        load_yaml(path, _Recipe)


def test_what_a_merge_brings_may_be_overridden(tmp_path: Path) -> None:
    path = _write(tmp_path, "name: x\nstages:\n  - &a {name: a, learning_rate: 1}\n  - {<<: *a, name: b}\n")
    assert [stage.name for stage in load_yaml(path, _Recipe).stages] == ["a", "b"]


def test_a_single_value_for_a_list_is_told_in_yaml_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"stages: give a list, as in \[a, b\]"):
        load_yaml(_write(tmp_path, "name: x\nstages: a"), _Recipe)


@pytest.mark.parametrize("text", ["- a", "", "name: [", "name: 3\n"])
def test_what_is_no_recipe_is_a_config_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        load_yaml(_write(tmp_path, text), _Recipe)


def test_overrides_reach_list_entries_by_name_and_number(tmp_path: Path) -> None:
    path = _write(tmp_path, "name: x\nstages: [{name: a}, {name: b}]")
    recipe = load_yaml(path, _Recipe, ["stages.b.learning_rate=0.5", "stages.0.learning_rate=0.25", "name=y"])
    assert ([s.learning_rate for s in recipe.stages], recipe.name) == ([0.25, 0.5], "y")


@pytest.mark.parametrize("override", ["name", "=1", "stages.c.name=x", "stages.9.name=x", "name.deep.er=1"])
def test_an_override_that_reaches_nothing_says_so(tmp_path: Path, override: str) -> None:
    with pytest.raises(ConfigError, match="override"):
        load_yaml(_write(tmp_path, "name: x\nstages: [{name: a}]"), _Recipe, [override])


def test_a_missing_recipe_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; give the path of a YAML file"):
        load_yaml(tmp_path / "none.yaml", _Recipe)


def test_canonical_json_does_not_depend_on_order() -> None:
    assert canonical_json({"b": 1, "a": Path("x")}) == canonical_json({"a": "x", "b": 1}) == b'{"a":"x","b":1}'
