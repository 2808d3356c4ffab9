"""The corpus that a recipe brings along: made once below the workspace, and served while it is fetched.

Recipes without a `corpus` section fetch from the real web; for them there is nothing to make and nothing to serve.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from pydantic import Field

from owl3.config import Config, validate
from owl3.demo.corpus import ScenesConfig, make_corpus
from owl3.demo.folders import FoldersConfig, make_folders
from owl3.demo.server import running
from owl3.manifest import MANIFEST_NAME
from owl3.pipeline import resolve_from_environment
from owl3.recipe import Recipe

HOSTS = "*.owl3.test"


class _Section(Config):
    corpus: Annotated[ScenesConfig | FoldersConfig, Field(discriminator="kind")]


def corpus_folder(workspace: Path) -> Path:
    """Where a recipe's own corpus lies."""
    return workspace / "corpus"


@contextmanager
def served(recipe: Recipe, workspace: Path, *, again: bool = False) -> Iterator[Mapping[str, str]]:
    """Make the recipe's corpus, serve it for as long as the block runs, and yield where its hosts are to be found.

    Nothing is served when everything was fetched before, unless it may have to be fetched `again`.

    Raises:
        ConfigError, InputError, StaleError: the corpus can't be made as the recipe asks.
    """
    if recipe.corpus is None:
        yield resolve_from_environment()
        return
    section = validate({"corpus": recipe.corpus}, _Section, where=f"recipe {recipe.name}").corpus
    folder = corpus_folder(workspace)
    if isinstance(section, ScenesConfig):
        make_corpus(folder, section)
    else:
        make_folders(folder, section)
    if not again and all((workspace / "shards" / entry.name / MANIFEST_NAME).is_file() for entry in recipe.curate):
        yield {}
        return
    with running(folder) as address:
        yield {HOSTS: address}
