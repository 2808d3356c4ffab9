"""The words builders put around pictures: one YAML per builder, English and Chinese, versioned.

    version: "1"
    en:
      ask: ["Describe image {k}.", …]

A template's version is part of a builder's version, and so of every sample's id: other words, other samples.
"""

from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from owl3.build.draw import Dice
from owl3.config import Config, validate
from owl3.errors import ConfigError
from owl3.yamlread import read_yaml

_FOLDER = Path(__file__).parent / "templates"


class Templates(Config):
    """All wordings of one builder: language → slot → alternatives."""

    version: str
    words: dict[str, dict[str, tuple[str, ...]]] = Field(min_length=1)

    @model_validator(mode="after")
    def _languages_agree(self) -> "Templates":
        slots = {frozenset(entry) for entry in self.words.values()}
        if len(slots) != 1 or any(not options for entry in self.words.values() for options in entry.values()):
            raise ValueError("every language needs the same slots, each with at least one wording")
        return self

    def pick(self, slot: str, language: str, dice: Dice) -> str:
        """One of the wordings of a slot, evenly."""
        return dice.pick(self.words[language][slot], "words", slot)


@cache
def load_templates(builder: str, path: Path | None = None) -> Templates:
    """Read the words of a builder.

    Raises:
        ConfigError: when the file is missing, or a language lacks a slot.
    """
    path = path or _FOLDER / f"{builder}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no templates for builder {builder!r}")
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: must hold `version`, and a mapping of slots to wordings per language")
    version = data.pop("version", None)
    return validate({"version": version, "words": data}, Templates, where=str(path))
