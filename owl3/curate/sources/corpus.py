"""The catalogue: what is known about each public corpus, so that a recipe need not find it out again.

One small module per corpus in `catalogue/`, with a real record in its docstring and one `CORPUS`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from owl3.config import Config
from owl3.errors import ConfigError

_CATALOGUE = "owl3.curate.sources.catalogue"


class Corpus(Config):
    """A corpus: where its metadata lives, what its columns are called, who may use it, what goes wrong."""

    name: str
    title: str
    media: Literal["image", "video"]
    home: str
    """Page that describes it."""
    metadata: str
    """Where the metadata is: hub id, URL, or what to download by hand."""
    metadata_licence: str
    media_licence: str
    citation: str
    source: dict[str, Any] = Field(default_factory=dict)
    """Defaults for a SourceConfig."""
    curate: dict[str, Any] = Field(default_factory=dict)
    """Defaults for a CurateConfig: filters that suit this corpus."""
    filters_from: str = ""
    """Who says so: paper, card or our own measurement behind each default filter."""
    hazards: tuple[str, ...] = ()
    """What has bitten its users."""
    checked: str
    """Which of all this was compared with what, and what was not."""

    def variant(self, **changes: Any) -> "Corpus":
        """A corpus that differs from this one in `changes` only; mappings are merged key by key, all else replaced."""
        return type(self).model_validate(merged(self.model_dump(), changes))


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: mappings key by key, all else replaced."""
    nested = {
        key: merged(base[key], value)
        for key, value in changes.items()
        if isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
    }
    return {**base, **changes, **nested}


def corpus_names() -> list[str]:
    """All corpora of the catalogue, by name."""
    catalogue = importlib.import_module(_CATALOGUE)
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(catalogue.__path__))


def find_corpus(name: str) -> Corpus:
    """Look a corpus up.

    Raises:
        ConfigError: naming those there are.
    """
    if name not in corpus_names():
        raise ConfigError(f"no corpus {name!r} in the catalogue; there are: {', '.join(corpus_names())}")
    module = importlib.import_module(f"{_CATALOGUE}.{name.replace('-', '_')}")
    corpus: Corpus = module.CORPUS
    licences = {"licence": corpus.media_licence, "metadata_licence": corpus.metadata_licence}
    texts = {"citation": corpus.citation, "homepage": corpus.home, "media": corpus.media}
    return corpus.model_copy(update={"source": licences | texts | corpus.source})
