"""How a recipe is read: YAML in, frozen pydantic models out, unknown keys refused by name.

Each module owns the config of the thing it does; `owl3/recipe.py` composes them into one file's worth.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from owl3.errors import ConfigError
from owl3.secrecy import tells_secret
from owl3.yamlread import parse_yaml, read_yaml


class Config(BaseModel):
    """A frozen section of a recipe. An unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


def load_yaml(path: Path, schema: type[ConfigT], overrides: Sequence[str] = ()) -> ConfigT:
    """Read `path` as YAML, apply `key.sub=value` overrides, and validate it as `schema`.

    Args:
        path: A YAML file holding one mapping.
        schema: The pydantic model it must satisfy.
        overrides: Dotted assignments; values are YAML (`stages.0.steps=20`, `name=demo`).

    Raises:
        ConfigError: naming the file, the key, and the nearest valid key for a misspelt one.
    """
    data = read_yaml(path)
    if not isinstance(data, dict):
        found = "empty" if data is None else f"a {type(data).__name__}"
        raise ConfigError(f"{path}: must hold one mapping of keys to values, this is {found}")
    for override in overrides:
        _apply_override(data, override)
    return validate(data, schema, where=str(path))


def validate(data: Any, schema: type[ConfigT], where: str) -> ConfigT:
    """Validate plain data as `schema`; `where` is the file (or command) an error should name.

    Raises:
        ConfigError: it is something else, or a key's value holds a credential: recipes are saved in manifests and
            shown on cards.
    """
    telling = next(_keys_that_tell(data), None)
    if telling is not None:
        raise ConfigError(
            f"{where}: {telling}: holds a credential; take it out and set it in the environment, for recipes are saved "
            "in manifests and cards"
        )
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        raise ConfigError(f"{where}: {_describe(error, schema)}") from error


def _keys_that_tell(value: Any, key: str = "") -> Iterator[str]:
    """Dotted keys whose text holds a password, a token or a signed URL."""
    if isinstance(value, dict):
        for name, entry in value.items():
            yield from _keys_that_tell(entry, f"{key}.{name}" if key else str(name))
    elif isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _keys_that_tell(entry, f"{key}.{index}")
    elif isinstance(value, str) and tells_secret(value):
        yield key


def _apply_override(data: dict[str, Any], override: str) -> None:
    key, separator, raw = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r}: write it as key.sub=value")
    node: Any = data
    *parents, last = key.split(".")
    for part in parents:
        node = _child(node, part, override)
    value = parse_yaml(raw, f"override {override!r}")
    if isinstance(node, list):
        node[_list_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigError(f"override {override!r}: {'.'.join(parents)} holds a plain value, it has no key {last!r}")


def _child(node: Any, part: str, override: str) -> Any:
    if isinstance(node, list):
        return node[_list_index(node, part, override)]
    if isinstance(node, dict):
        return node.setdefault(part, {})
    raise ConfigError(f"override {override!r}: nothing lies under {part!r}")


def _list_index(node: list[Any], part: str, override: str) -> int:
    """Take a list entry by number, or by its `name`."""
    for index, entry in enumerate(node):
        if isinstance(entry, dict) and entry.get("name") == part:
            return index
    if part.isdecimal() and int(part) < len(node):
        return int(part)
    names = [entry["name"] for entry in node if isinstance(entry, dict) and "name" in entry]
    raise ConfigError(f"override {override!r}: no entry {part!r} (entries: {', '.join(map(str, names)) or len(node)})")


def _describe(error: ValidationError, schema: type[BaseModel]) -> str:
    """Turn the first pydantic complaint into one line with the key and what to write instead."""
    first, *rest = error.errors()
    location = [part for part in first["loc"] if not (isinstance(part, str) and part.startswith("function-"))]
    key = ".".join(str(part) for part in location)
    more = f" (and {len(rest)} more)" if rest else ""
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{_nearest(location, schema)}{more}"
    message = "give a list, as in [a, b]" if first["type"] in _LIST_TYPES else first["msg"]
    if first["type"] == "string_pattern_mismatch":
        message = _letters(first["ctx"]["pattern"]) or message
    return f"{key or 'recipe'}: {message.removeprefix('Value error, ')}{_given(first)}{more}"


def _given(complaint: Any) -> str:
    """What stands there, where that is a plain value and our own words do not repeat it."""
    value = complaint["input"]
    if complaint["type"] in ("missing", "value_error") or not isinstance(value, str | int | float | None):
        return ""
    text = repr(value)
    return f", not {text if len(text) <= _GIVEN_LETTERS else text[:_GIVEN_LETTERS] + '…'}"


def _letters(pattern: str) -> str | None:
    """A name's pattern (`^[a-z0-9][a-z0-9._-]*$`) in words; None for a pattern of another shape."""
    shape = re.fullmatch(r"\^\[[^\]]+\]\[([^\]]+)\]\*\$", pattern)
    if shape is None:
        return None
    kinds = {"A-Z": "capital letters", "a-z": "lower-case letters", "0-9": "digits"}
    words = [word for kind, word in kinds.items() if kind in shape[1]]
    signs = re.sub("|".join(kinds), "", shape[1])
    return f"write it in {', '.join(words)} and {' '.join(sorted(signs))}"


_GIVEN_LETTERS = 60
_LIST_TYPES = ("list_type", "tuple_type", "set_type", "frozen_set_type")


def _nearest(location: Sequence[int | str], schema: type[BaseModel]) -> str:
    """What may have been meant by an unknown key: the same a level below, one like it, else all of its section."""
    sections = _sections_at(location[:-1], schema)
    below = next((path for section in sections if (path := _path_to(str(location[-1]), section))), None)
    if below is not None:
        return f"; did you mean {'.'.join(map(str, (*location[:-1], below)))!r}?"
    own = sorted({name for section in sections for name in section.model_fields})
    for candidates in (own, sorted(_known_keys(schema))):
        near = difflib.get_close_matches(str(location[-1]), candidates, n=1, cutoff=0.7)
        if near:
            return f"; did you mean {near[0]!r}?"
    return f"; there are: {', '.join(own)}" if own else ""


def _path_to(name: str, section: type[BaseModel], levels: int = 2) -> str | None:
    """Where a key of that name stands in a section of this one, as a dotted path."""
    for field, info in section.model_fields.items():
        for nested in _nested_models(info.annotation):
            if name in nested.model_fields:
                return f"{field}.{name}"
            path = _path_to(name, nested, levels - 1) if levels > 1 else None
            if path is not None:
                return f"{field}.{path}"
    return None


def _sections_at(location: Sequence[int | str], schema: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may stand at a place in a recipe; numbers of lists and tags of unions name none."""
    found = [schema]
    for part in location:
        below = [
            nested
            for section in found
            if part in section.model_fields
            for nested in _nested_models(section.model_fields[str(part)].annotation)
        ]
        found = below or found
    return found


def _known_keys(schema: type[BaseModel], seen: frozenset[type[BaseModel]] = frozenset()) -> set[str]:
    """All keys of a model and of the models inside it: candidates for 'did you mean'."""
    keys: set[str] = set()
    for name, field in schema.model_fields.items():
        keys.add(name)
        for nested in _nested_models(field.annotation):
            if nested not in seen:
                keys |= _known_keys(nested, seen | {schema})
    return keys


def _nested_models(annotation: Any) -> Iterable[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _nested_models(argument)


def plain(value: Any) -> Any:
    """Turn models and paths inside `value` into JSON's own types."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value


def canonical_json(value: Any) -> bytes:
    """One byte string per value: sorted keys, no spaces, UTF-8. What digests are taken over."""
    return plain_json(plain(value))


def plain_json(value: Any) -> bytes:
    """`canonical_json` of what is made of JSON's own types already: half the time."""
    return _CANONICAL.encode(value).encode("utf-8")


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_of(value: Any) -> str:
    """Return the sha256 of the canonical JSON of `value`, as 64 hex digits."""
    return hashlib.sha256(canonical_json(value)).hexdigest()
