"""Each recipe of `flows/recipes/corpora` from its metadata to shards, against a server with faults."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from curate.corpora import HOST, TABLES, World, build
from curate.hostile import Hostile, hostile_server
from owl3.curate.run import curate
from owl3.curate.sources.corpus import corpus_names, find_corpus
from owl3.curate.sources.prepare import prepare
from owl3.recipe import RECIPES, Recipe, load_recipe

CLIPS = [name for name in corpus_names() if find_corpus(name).media == "video"]
PICTURES = ["coco-captions", "laion-en"]  # a folder and a table; tests/soak runs all of them: each starts img2dataset


@pytest.fixture(scope="module")
def web() -> Iterator[Hostile]:
    with hostile_server() as web:
        yield web


def recipe(name: str, *overrides: str) -> Recipe:
    return load_recipe(RECIPES / "corpora" / f"{name}.yaml", overrides)


def run(name: str, workspace: Path, web: Hostile) -> tuple[World, dict[str, int], dict[str, int], int]:
    """Prepare and curate a corpus in small; what must come of it, and what came of it."""
    world = build(name, workspace, web)
    given = [f"sources.{name}.files=[{world.file}]", f"sources.{name}.hub=null"]
    if recipe(name, *given).sources[0].base_url:
        given.append(f"sources.{name}.base_url=http://{HOST}/{name}/")
    given += [f"curate.{name}.fetch.backoff_s=0", f"curate.{name}.fetch.allow_private_hosts=[{HOST}]"]
    made = recipe(name, *given)
    prepared = prepare(made.sources[0], workspace)
    shards = curate(made.curate[0], workspace, resolve={HOST: f"127.0.0.1:{web.port}"})
    return world, prepared.counts.dropped, shards.counts.dropped, shards.counts.kept


def test_every_corpus_has_a_recipe_of_its_name_and_rows_here() -> None:
    assert sorted(path.stem for path in (RECIPES / "corpora").glob("*.yaml")) == corpus_names() == sorted(TABLES)
    for name in corpus_names():
        made = recipe(name)
        assert (made.name, made.sources[0].corpus, made.curate[0].corpus) == (name, name, name)


@pytest.mark.processes
@pytest.mark.parametrize("name", [*CLIPS, *PICTURES])
def test_a_corpus_from_metadata_to_shards(name: str, workspace: Path, web: Hostile) -> None:
    world, prepared, dropped, kept = run(name, workspace, web)
    assert (prepared, dropped, kept) == (world.prepared, world.curated, world.kept)


REAL_ROWS = [
    ("laion-en", "web_metadata/laion_url_text/laion_url_text.parquet", 2000, {}),
    ("laion-en", "web_metadata/laion_url_text/laion_url_text.300.csv", 300, {}),
    ("laion-en", "web_metadata/laion_url_text/laion_url_text.300.tsv", 300, {}),
    ("cc3m", "web_metadata/cc3m/Validation_GCC.subset.tsv", 800, {}),
    ("coyo-700m", "web_metadata/coyo/coyo_readme_rows.parquet", 4, {}),
    ("coyo-700m", "web_metadata/coyo/coyo_readme_rows.jsonl", 4, {}),
    ("webvid", "web_metadata/video/webvid_mp4.parquet", 40, {}),
    ("webvid", "web_metadata/video/test_webvid.csv", 20, {}),
    ("webvid", "web_metadata/video/test_yt.csv", 3, {}),
    ("coco-captions", "coco/annotations/captions_train2017.json", 95, {}),
    ("llava-pretrain", "laion_cc_sbu_pairs/*.json", 240, {}),
]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "file", "seen", "dropped"), REAL_ROWS)
def test_real_rows_are_kept_or_counted(
    name: str, file: str, seen: int, dropped: dict[str, int], workspace: Path, shared_data: Callable[[str], Path]
) -> None:
    where = shared_data("data") / file
    source = recipe(name, f"sources.{name}.files=[{where}]", f"sources.{name}.hub=null").sources[0]
    counts = prepare(source, workspace).counts
    assert (counts.seen, counts.dropped) == (seen, dropped)
