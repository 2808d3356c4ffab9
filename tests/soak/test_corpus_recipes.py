"""All recipes of picture corpora end to end: each starts img2dataset, a minute for all of them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from curate.hostile import Hostile, hostile_server
from curate.test_corpus_recipes import CLIPS, PICTURES, run

from owl3.curate.sources.corpus import corpus_names


@pytest.fixture(scope="module")
def web() -> Iterator[Hostile]:
    with hostile_server() as web:
        yield web


@pytest.mark.parametrize("name", sorted({*corpus_names()} - {*CLIPS, *PICTURES}))
def test_a_corpus_from_metadata_to_shards(name: str, workspace: Path, web: Hostile) -> None:
    world, prepared, dropped, kept = run(name, workspace, web)
    assert (prepared, dropped, kept) == (world.prepared, world.curated, world.kept)
