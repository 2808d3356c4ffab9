"""One YAML file that says what to run, from sources to cards.

Each section is owned by the module that does it; here they are only put together and checked against each other.
Every verb takes the same file and reads its own sections, so a recipe for training alone leaves the others out.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from owl3.build.config import BuildConfig, TokenizerConfig
from owl3.cards.config import CardConfig
from owl3.config import Config, load_yaml
from owl3.curate.config import CurateConfig
from owl3.curate.sources.prepare import SourceConfig
from owl3.errors import ConfigError
from owl3.eval.settings import AblationConfig, EvalConfig
from owl3.train.stages import ModelSpec, StageConfig

RECIPES = Path(__file__).parent.parent / "flows" / "recipes"


class Recipe(Config):
    """See the head of this file."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    seed: int = 0
    corpus: dict[str, Any] | None = None
    """A corpus that `owl3 demo` makes and serves itself before the chain begins; real recipes have none."""
    sources: tuple[SourceConfig, ...] = ()
    curate: tuple[CurateConfig, ...] = ()
    tokenizer: TokenizerConfig | None = None
    build: tuple[BuildConfig, ...] = ()
    model: ModelSpec | None = None
    stages: tuple[StageConfig, ...] = ()
    eval: EvalConfig | None = None
    card: CardConfig | None = None
    ablation: AblationConfig | None = None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        for section in ("sources", "curate", "build", "stages"):
            _refuse_repeats(section, [entry.name for entry in getattr(self, section)])
        return self

    def stage(self, name: str) -> StageConfig:
        """Return a stage by name.

        Raises:
            ConfigError: naming the stages there are.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        names = ", ".join(stage.name for stage in self.stages) or "none"
        raise ConfigError(f"recipe {self.name}: no stage {name!r}; it has: {names}")


def _refuse_repeats(section: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"{section}: two entries are named {name!r}")
        seen.add(name)


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, with `key.sub=value` overrides applied; list entries are reached by name or number.

    Raises:
        ConfigError: naming the file, the key, and the nearest valid key for a misspelt one.
    """
    return load_yaml(path, Recipe, overrides)
