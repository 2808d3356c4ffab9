"""The corpus is exact: what is expected of it follows from the schedule, and training never holds a held-out scene."""

import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from demo.conftest import SMALL
from owl3.demo.corpus import (
    MIN_HASH_DISTANCE,
    NEAR_HASH_DISTANCE,
    ScenesConfig,
    make_corpus,
    perceptual_hash,
    read_expected,
)
from owl3.demo.faults import FAULTS, bomb_png, expected_drops
from owl3.demo.routes import read_routes
from owl3.demo.scenes import Scene, Thing
from owl3.errors import InputError, StaleError
from owl3.ledger import REASONS
from owl3.storage import files_under, sha256_of


def bytes_under(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files_under(folder)}


def test_the_same_settings_make_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    make_corpus(tmp_path / "again", SMALL)
    assert bytes_under(tmp_path / "again") == bytes_under(corpus)


def test_a_corpus_that_is_there_is_left_alone_and_another_one_is_refused(corpus: Path) -> None:
    before = (corpus / "corpus.json").stat().st_mtime_ns
    make_corpus(corpus, SMALL)
    assert (corpus / "corpus.json").stat().st_mtime_ns == before
    with pytest.raises(StaleError, match="other settings"):
        make_corpus(corpus, ScenesConfig(seed=9))


def test_every_fault_stands_in_the_table_as_often_as_the_schedule_says(corpus: Path) -> None:
    rows = pq.read_table(corpus / "tables/scenes.parquet").to_pylist()
    counted = Counter(row["fault"] for row in rows)
    assert counted.pop("") == SMALL.pictures
    assert counted == {fault.name: fault.count for fault in FAULTS if fault.name != "no-picture"}


def test_expected_counts_are_conserved_and_use_reasons_of_the_ledger(corpus: Path) -> None:
    expected = read_expected(corpus)
    for counts in expected.values():
        assert counts["seen"] == counts["kept"] + sum(counts["dropped"].values())
        assert set(counts["dropped"]) <= set(REASONS)
    assert expected["source scenes"]["kept"] == expected["shards scenes"]["seen"]
    assert expected["shards scenes"]["dropped"] == expected_drops("shards scenes")
    busy_once = next(fault for fault in FAULTS if fault.name == "busy-once")
    assert expected["shards scenes"]["kept"] == SMALL.pictures + busy_once.count


def test_every_url_of_a_picture_has_a_route(corpus: Path) -> None:
    routes = {route.url for route in read_routes(corpus / "routes.jsonl").values()}
    rows = pq.read_table(corpus / "tables/scenes.parquet").to_pylist()
    assert {row["url"] for row in rows if row["fault"] != "bad-url"} == {url for url in routes if "clips." not in url}


def test_training_shows_no_held_out_combination_but_for_the_leaked_pictures(corpus: Path) -> None:
    for line in (corpus / "truth.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if "scene" not in entry:
            continue
        seen = entry["scene"]
        scene = Scene(seen["kind"], tuple(Thing(**thing) for thing in seen["things"]), seen["seed"], seen["word"])
        assert scene.held_out == ("/leaked/" in entry["url"])


def test_leaked_pictures_stand_in_a_held_out_set(corpus: Path) -> None:
    held_out = {sha256_of(path) for path in (corpus / "heldout").glob("*/*.jpg")}
    assert all(sha256_of(path) in held_out for path in (corpus / "served/leaked").iterdir())


def test_pictures_differ_in_their_hashes_unless_they_are_copies(corpus: Path) -> None:
    codes = np.array([perceptual_hash(path.read_bytes()) for path in sorted((corpus / "served/pictures").iterdir())])
    distances = np.bitwise_count(codes[:, None] ^ codes[None, :]) + 64 * np.eye(len(codes), dtype=int)
    assert distances.min() >= MIN_HASH_DISTANCE
    near = [perceptual_hash(path.read_bytes()) for path in (corpus / "served/near-copy").iterdir()]
    assert all(np.bitwise_count(codes ^ code).min() <= NEAR_HASH_DISTANCE for code in near)
    originals = {sha256_of(path) for path in (corpus / "served/pictures").iterdir()}
    assert all(sha256_of(path) in originals for path in (corpus / "served/copy").iterdir())


def test_questions_among_pictures_name_the_place_of_the_picture_asked_about(corpus: Path) -> None:
    for line in (corpus / "heldout/scenes-multi-2/questions.jsonl").read_text().splitlines():
        question = json.loads(line)
        assert 1 <= question["index"] <= len(question["media"]) == 2
        assert question["answer"] in question["options"]
        assert all((corpus / "heldout/scenes-multi-2" / name).is_file() for name in question["media"])


def test_conversations_refer_to_each_of_their_pictures_once(corpus: Path) -> None:
    files = [corpus / f"instruct/{name}.json" for name in ("scenes", "among-3", "clips")]
    for talked in [talked for file in files for talked in json.loads(file.read_text())]:
        text = " ".join(turn["value"] for turn in talked["conversations"])
        media = talked.get("video") or talked["image"]
        assert text.count("<image>") + text.count("<video>") == (1 if isinstance(media, str) else len(media))
        assert [turn["from"] for turn in talked["conversations"]] == ["human", "gpt"] * (
            len(talked["conversations"]) // 2
        )


def test_the_bomb_is_small_to_fetch_and_huge_to_open() -> None:
    data = bomb_png()
    with pytest.raises(Image.DecompressionBombError):
        Image.open(io.BytesIO(data))
    assert len(data) < 100_000


def test_a_folder_without_a_corpus_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="owl3 demo"):
        read_expected(tmp_path)
