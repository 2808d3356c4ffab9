"""YAML as plain data, from files that a person wrote: whatever is wrong with one is told as file, line and column.

Beside what `yaml.safe_load` refuses, so are a key that stands twice in one mapping (YAML lets the last one win, in
silence), a mapping or list that contains itself, and aliases that stand for more than any recipe holds.
"""

from pathlib import Path
from typing import Any

import yaml

from owl3.errors import ConfigError

MAX_NODES = 1_000_000
"""Keys and values of a file, with aliases written out: nine lines of nested aliases can stand for billions."""

_SHOWN_LETTERS = 40


def read_yaml(path: Path) -> Any:
    """The plain data of a YAML file.

    Raises:
        ConfigError: there is no such file, or it is not UTF-8 or not YAML; the message is one line.
    """
    if path.is_dir():
        raise ConfigError(f"{path}: is a folder; give the path of a YAML file")
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; give the path of a YAML file")
    try:
        return parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: not readable as YAML: byte {error.start + 1} is not UTF-8; save it as that"
        ) from error


def parse_yaml(text: str, where: str) -> Any:
    """The plain data of some YAML; `where` begins the message when it can't be read.

    Raises:
        ConfigError: it is not YAML.
    """
    try:
        return yaml.load(text, PlainLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: not readable as YAML: {_complaint(error)}") from error
    except RecursionError as error:
        raise ConfigError(f"{where}: not readable as YAML: it is nested too deeply") from error


class PlainLoader(yaml.SafeLoader):
    """Makes data alone, as `SafeLoader`, and refuses what reads as something else than it looks."""

    def get_single_node(self) -> Any:
        """Read the document as it is written, and count what its aliases stand for."""
        node = super().get_single_node()
        if node is not None and _written_out(node, {}) > MAX_NODES:
            problem = f"its aliases stand for more than {MAX_NODES:,} values"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Read a mapping as it is written, before `<<` merges others into it."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge" or not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"the key {key.value!r} stands here twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Make a value; one that looks like a date or a number and is none is told with its place."""
        try:
            return super().construct_object(node, deep=deep)
        except ValueError as error:
            text = str(node.value)
            shown = text if len(text) <= _SHOWN_LETTERS else f"{text[:_SHOWN_LETTERS]}…"
            why = str(error).split(";", maxsplit=1)[0].split(":", maxsplit=1)[0]
            problem = f"{shown!r} is no value ({why}); put it in quotes if it is a text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error


def _written_out(node: yaml.Node, sizes: dict[int, int | None]) -> int:
    """How many nodes a document has when every alias is written out; `sizes` remembers, None while it is counted."""
    if id(node) not in sizes:
        sizes[id(node)] = None
        parts = node.value if isinstance(node, yaml.CollectionNode) else ()
        children = [child for part in parts for child in (part if isinstance(part, tuple) else (part,))]
        sizes[id(node)] = 1 + sum(_written_out(child, sizes) for child in children)
    size = sizes[id(node)]
    if size is None:
        raise yaml.constructor.ConstructorError(None, None, "it contains itself", node.start_mark)
    return size


def _complaint(error: yaml.YAMLError) -> str:
    """One line: where, and what is wrong there."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return " ".join(str(error).split())
    what = ": ".join(part for part in (getattr(error, "context", None), getattr(error, "problem", None)) if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {what}"
