"""What the catalogue knows, and how a recipe builds on it; each corpus end to end: test_corpus_recipes.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from curate.corpora import DATACOMP, LAION, TABLES, Item, write
from owl3.curate.config import CurateConfig
from owl3.curate.sources.corpus import corpus_names, find_corpus
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.curate.sources.urltables import iter_rows
from owl3.errors import ConfigError, InputError
from owl3.ledger import REASONS
from owl3.manifest import Manifest


def prepared(workspace: Path, corpus: str, **settings: Any) -> tuple[Manifest, list[dict[str, Any]]]:
    given = {"name": "s", "corpus": corpus, "hub": None} | settings
    manifest = prepare(SourceConfig.model_validate(given), workspace)
    rows = [row for table in iter_rows(workspace / "sources" / "s", 1000) for row in table.to_pylist()]
    return manifest, rows


@pytest.mark.parametrize("name", corpus_names())
def test_what_the_catalogue_says_is_whole_and_usable(name: str) -> None:
    corpus = find_corpus(name)
    assert corpus.metadata and corpus.hazards and corpus.filters_from and corpus.checked
    assert corpus.media_licence and corpus.metadata_licence
    config = CurateConfig.model_validate({"name": name, "source": name, "corpus": name})
    assert {rule.reason for rule in config.rows.scores} <= REASONS.keys()


def test_recorded_hashes_faces_and_scores_are_carried_along(workspace: Path) -> None:
    items = [Item("1", "two dogs", DATACOMP | {"sha256": "AB" * 32})]
    write(workspace / "a.parquet", TABLES["datacomp-1b"].write(items))
    _, (row,) = prepared(workspace, "datacomp-1b", files=["a.parquet"])
    assert row["expected_sha256"] == "ab" * 32 and row["boxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert row["src_clip_l14_similarity_score"] == 0.27


def test_several_captions_can_be_several_rows(workspace: Path) -> None:
    write(workspace / "a.json", TABLES["vatex-en"].write([Item("v/1", "a guy", {})]))
    _, rows = prepared(workspace, "vatex-en", files=["a.json"], captions="each", base_url="http://local.test/")
    assert [row["caption"] for row in rows] == ["a guy", "he"]


def test_a_recipe_overrules_the_catalogue() -> None:
    given = {"name": "s", "corpus": "cc3m", "files": ["x.tsv"], "licence": "CC0-1.0"}
    config = SourceConfig.model_validate(given)
    assert config.licence == "CC0-1.0" and config.columns.caption == "0" and not config.header
    rules = {"name": "s", "source": "s", "corpus": "laion-en", "image": {"min_side_px": 64}}
    image = CurateConfig.model_validate(rules).image
    assert (image.min_side_px, image.max_aspect_ratio) == (64, 3.0)  # what it does not name stays


def test_an_unknown_corpus_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no corpus 'laion'.*coyo-700m"):
        find_corpus("laion")


def test_a_dataset_in_the_hubs_layout_is_streamed(workspace: Path) -> None:
    folder = workspace / "hub"
    folder.mkdir()
    items = [Item(str(number), f"{number} dogs", LAION) for number in range(2)]
    write(folder / "train.parquet", TABLES["laion-en"].write(items))
    settings = {"name": "s", "corpus": "laion-en", "hub": str(folder), "max_rows": 1}
    manifest = prepare(SourceConfig.model_validate(settings), workspace)
    assert manifest.counts.kept == 1


def test_a_hub_that_can_not_be_reached_is_an_error_that_says_so(workspace: Path) -> None:
    settings = {"name": "s", "corpus": "laion-en", "hub": "owl3-tests/there-is-no-such-dataset"}
    with pytest.raises(InputError, match="hub dataset 'owl3-tests/there-is-no-such-dataset'"):
        prepare(SourceConfig.model_validate(settings), workspace)


@pytest.mark.shared
def test_real_msrvtt_test_rows(workspace: Path, shared_data: Callable[[str], Path]) -> None:
    path = shared_data("data/video_captions/MSRVTT_JSFUSION_test.subset.csv")
    settings = {"files": [str(path)], "delimiter": ";", "rows_at": None, "base_url": "http://local.test/"}
    manifest, rows = prepared(workspace, "msrvtt", **settings)
    assert manifest.counts.kept == 300 and rows[0]["url"].startswith("http://local.test/video")
