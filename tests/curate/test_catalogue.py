"""Every corpus of the catalogue, on real rows where there are some and on schema-true ones elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from owl3.curate.run import CurateConfig
from owl3.curate.sources.corpus import corpus_names, find_corpus
from owl3.curate.sources.prepare import SourceConfig, iter_rows, prepare
from owl3.errors import ConfigError, InputError
from owl3.ledger import REASONS
from owl3.manifest import Manifest

URL = "http://a.example/1.jpg"
LLAVA = [{"from": "human", "value": "<image>\nDescribe."}, {"from": "gpt", "value": "a boy on a mattress"}]
DATACOMP = {"uid": "0" * 32, "text": "two dogs", "clip_l14_similarity_score": 0.27, "clip_b32_similarity_score": 0.3}
LAION = {"SAMPLE_ID": 1, "URL": URL, "TEXT": "two dogs", "similarity": 0.3, "punsafe": 0.01, "pwatermark": 0.1}

ROWS: dict[str, tuple[str, Any, str, str]] = {
    # corpus: file, content, expected URL, expected caption
    "laion-en": ("a.parquet", [LAION], URL, "two dogs"),
    "laion-zh": ("a.parquet", [LAION | {"TEXT": "两只狗", "LANGUAGE": "zh"}], URL, "两只狗"),
    "coyo-700m": ("a.parquet", [{"url": URL, "text": "two dogs", "id": 7, "watermark_score": 0.1}], URL, "two dogs"),
    "coyo-ocr": ("a.parquet", [{"url": URL, "text": "a sign", "id": 7, "ocr_text": "STOP"}], URL, "a sign"),
    "datacomp-1b": (
        "a.parquet",
        [DATACOMP | {"url": URL, "sha256": "AB" * 32, "face_bboxes": [[0.1, 0.2, 0.3, 0.4]]}],
        URL,
        "two dogs",
    ),
    "cc3m": ("a.tsv", f"group of deer in a field .\t{URL}\n", URL, "group of deer in a field ."),
    "cc12m": ("a.tsv", f"{URL}\t<PERSON> in a field\n", URL, "<PERSON> in a field"),
    "wukong": ("a.csv", f"url,caption\n{URL},四驱越野车\n", URL, "四驱越野车"),
    "sbu": ("a.json", {"image_urls": [URL], "captions": ["A wooden chair"]}, URL, "A wooden chair"),
    "coco-captions": (
        "a.json",
        {
            "images": [{"id": 1, "file_name": "b/1.jpg", "license": 4}],
            "annotations": [{"id": 2, "image_id": 1, "caption": "two dogs"}],
        },
        "http://local.test/b/1.jpg",
        "two dogs",
    ),
    "llava-pretrain": (
        "a.json",
        [{"id": "1", "image": "00/1.jpg", "conversations": LLAVA}],
        "http://local.test/00/1.jpg",
        "a boy on a mattress",
    ),
    "llava-recap-558k": (
        "a.json",
        [{"id": "1", "image": "00/1.jpg", "conversations": LLAVA}],
        "http://local.test/00/1.jpg",
        "a boy on a mattress",
    ),
    "sharegptvideo": (
        "a.jsonl",
        [{"id": "1", "video": "zz-Scene-003", "conversations": LLAVA}],
        "http://local.test/zz-Scene-003.mp4",
        "a boy on a mattress",
    ),
    "vatex-en": (
        "a.json",
        [{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["a guy", "he"], "chCap": ["男人", "他"]}],
        "http://local.test/Ptf_2VRj-V0_000122_000132.mp4",
        "a guy",
    ),
    "vatex-zh": (
        "a.json",
        [{"videoID": "Ptf_2VRj-V0_000122_000132", "enCap": ["a guy", "he"], "chCap": ["男人", "他"]}],
        "http://local.test/Ptf_2VRj-V0_000122_000132.mp4",
        "男人",
    ),
    "msrvtt": (
        "a.json",
        {"videos": [{"video_id": "video1"}], "sentences": [{"caption": "a dog", "video_id": "video1", "sen_id": 0}]},
        "http://local.test/video1.mp4",
        "a dog",
    ),
    "msvd": (
        "a.txt",
        "# comment\nmv89psg6zh4_33_46 a bird in the sink\n",
        "http://local.test/mv89psg6zh4_33_46.avi",
        "a bird in the sink",
    ),
    "webvid": (
        "a.csv",
        "videoid,name,contentUrl\n1,City lights,http://a.example/1.mp4\n",
        "http://a.example/1.mp4",
        "City lights",
    ),
    "local-clips": ("a.jsonl", [{"file": "b c.mp4", "caption": "a boat"}], "http://local.test/b%20c.mp4", "a boat"),
}


def write(path: Path, content: Any) -> None:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))


def prepared(workspace: Path, corpus: str, **settings: Any) -> tuple[Manifest, list[dict[str, Any]]]:
    given = {"name": "s", "corpus": corpus, "hub": None} | settings
    manifest = prepare(SourceConfig.model_validate(given), workspace)
    rows = [row for table in iter_rows(workspace / "sources" / "s", 1000) for row in table.to_pylist()]
    return manifest, rows


def base_url(corpus: str) -> dict[str, str]:
    is_local = ROWS[corpus][2].startswith("http://local.test")
    return {"base_url": "http://local.test/"} if is_local else {}


def test_every_corpus_has_rows_here() -> None:
    assert sorted(ROWS) == corpus_names()


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows_in_the_corpuss_own_columns_become_a_url_table(name: str, workspace: Path) -> None:
    file, content, url, caption = ROWS[name]
    write(workspace / file, content)
    manifest, (row,) = prepared(workspace, name, files=[file], **base_url(name))
    assert (row["url"], row["caption"]) == (url, caption)
    assert manifest.stats["media"] == find_corpus(name).media


@pytest.mark.parametrize("name", sorted(ROWS))
def test_what_the_catalogue_says_is_whole_and_usable(name: str) -> None:
    corpus = find_corpus(name)
    assert corpus.metadata and corpus.hazards and corpus.filters_from
    assert corpus.media_licence and corpus.metadata_licence
    config = CurateConfig.model_validate({"name": name, "source": name, "corpus": name})
    assert {rule.reason for rule in config.rows.scores} <= REASONS.keys()


def test_recorded_hashes_faces_and_scores_are_carried_along(workspace: Path) -> None:
    file, content, _, _ = ROWS["datacomp-1b"]
    write(workspace / file, content)
    _, (row,) = prepared(workspace, "datacomp-1b", files=[file])
    assert row["expected_sha256"] == "ab" * 32 and row["boxes"] == [[0.1, 0.2, 0.3, 0.4]]
    assert row["src_clip_l14_similarity_score"] == 0.27


def test_several_captions_can_be_several_rows(workspace: Path) -> None:
    file, content, _, _ = ROWS["vatex-en"]
    write(workspace / file, content)
    _, rows = prepared(workspace, "vatex-en", files=[file], captions="each", base_url="http://local.test/")
    assert [row["caption"] for row in rows] == ["a guy", "he"]


def test_a_recipe_overrules_the_catalogue() -> None:
    given = {"name": "s", "corpus": "cc3m", "files": ["x.tsv"], "licence": "CC0-1.0"}
    config = SourceConfig.model_validate(given)
    assert config.licence == "CC0-1.0" and config.columns.caption == "0" and not config.header
    rules = {"name": "s", "source": "s", "corpus": "laion-en", "image": {"min_side_px": 64}}
    assert CurateConfig.model_validate(rules).image.min_side_px == 64


def test_an_unknown_corpus_names_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no corpus 'laion'.*coyo-700m"):
        find_corpus("laion")


def test_a_dataset_in_the_hubs_layout_is_streamed(workspace: Path) -> None:
    folder = workspace / "hub"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist([LAION, LAION | {"TEXT": "three dogs"}]), folder / "train.parquet")
    settings = {"name": "s", "corpus": "laion-en", "hub": str(folder), "max_rows": 1}
    manifest = prepare(SourceConfig.model_validate(settings), workspace)
    assert manifest.counts.kept == 1


def test_a_hub_that_can_not_be_reached_is_an_error_that_says_so(workspace: Path) -> None:
    settings = {"name": "s", "corpus": "laion-en", "hub": "owl3-tests/there-is-no-such-dataset"}
    with pytest.raises(InputError, match="hub dataset 'owl3-tests/there-is-no-such-dataset'"):
        prepare(SourceConfig.model_validate(settings), workspace)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "file", "seen", "dropped"),
    [
        ("laion-en", "laion_url_text/laion_url_text.parquet", 2000, None),
        ("laion-en", "laion_url_text/laion_url_text.300.csv", 300, None),
        ("laion-en", "laion_url_text/laion_url_text.300.tsv", 300, None),
        ("cc3m", "cc3m/Validation_GCC.subset.tsv", 800, {}),
        ("coyo-700m", "coyo/coyo_readme_rows.parquet", 4, {}),
        ("coyo-700m", "coyo/coyo_readme_rows.jsonl", 4, {}),
        ("webvid", "video/webvid_mp4.parquet", 40, {}),
        ("webvid", "video/test_webvid.csv", None, None),
        ("webvid", "video/test_yt.csv", None, None),
    ],
)
def test_real_rows(
    name: str, file: str, seen: int, dropped: dict[str, int] | None, workspace: Path, shared_data: Callable[[str], Path]
) -> None:
    path = shared_data(f"data/web_metadata/{file}")
    manifest, rows = prepared(workspace, name, files=[str(path)], columns=_without_missing_columns(name))
    assert manifest.counts.seen == (seen or manifest.counts.seen) and manifest.counts.kept == len(rows) > 0
    assert dropped is None or manifest.counts.dropped == dropped
    assert manifest.counts.kept >= 0.98 * manifest.counts.seen


def _without_missing_columns(name: str) -> dict[str, Any]:
    columns = dict(find_corpus(name).source.get("columns", {}))
    return columns | {"extra": []}


@pytest.mark.shared
def test_real_msrvtt_test_rows(workspace: Path, shared_data: Callable[[str], Path]) -> None:
    path = shared_data("data/video_captions/MSRVTT_JSFUSION_test.subset.csv")
    settings = {"files": [str(path)], "delimiter": ";", "rows_at": None, "base_url": "http://local.test/"}
    manifest, rows = prepared(workspace, "msrvtt", **settings)
    assert manifest.counts.kept == 300 and rows[0]["url"].startswith("http://local.test/video")
