"""What each builder makes of its parents."""

import io
import json
import math
import os
import shutil
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from owl3.build import materialize as materialize_module
from owl3.build.config import BUILD_CONFIG, TokenizerConfig
from owl3.build.materialize import materialize
from owl3.build.run import build
from owl3.build.selective import kth
from owl3.build.text_reading import ocr_text
from owl3.build.tokenizer import make_tokenizer
from owl3.errors import InputError
from owl3.recipe import RECIPES, load_recipe
from owl3.samples import Sample, url_sample_id
from owl3.shards import iter_samples
from owl3.template import render
from owl3.tokens import TextTokenizer
from tests.build.test_build_run import index_of
from tests.build.world import caption_of, curated_row, picture, write_shards


def make(workspace: Path, builder: str, name: str = "made", **fields: Any) -> list[Sample]:
    """Build a set and return its samples."""
    cfg = BUILD_CONFIG.validate_python({"name": name, "tokenizer": "tiny", "builder": builder, **fields})
    build(cfg, workspace)
    tars = sorted((workspace / "samples" / name).glob("*.tar"))
    return [Sample.model_validate_json(members["json"]) for tar in tars for _, members in iter_samples(tar)]


def rows_of(workspace: Path, name: str = "made") -> list[dict[str, Any]]:
    """The index of a set."""
    return [
        row
        for path in sorted((workspace / "samples" / name).glob("*.parquet"))
        for row in pq.read_table(path).to_pylist()
    ]


def reasons(workspace: Path, name: str = "made") -> dict[str, int]:
    """Drops by reason."""
    return json.loads((workspace / "samples" / name / "manifest.json").read_text())["counts"]["dropped"]


def text_of(sample: Sample) -> str:
    """A sample on one line: media as ‹0›."""
    return "".join(segment.text if segment.text is not None else f"‹{segment.medium}›" for segment in sample.segments)


def write_json(workspace: Path, rows: Any, name: str = "qa.json") -> str:
    """Write an instruction file; return its path relative to the workspace."""
    (workspace / name).write_text(json.dumps(rows))
    return name


def question(image: Any, ask: str = "<image>What colour?", answer: str = "red") -> dict[str, Any]:
    """A row in LLaVA's layout."""
    return {"image": image, "conversations": [{"from": "human", "value": ask}, {"from": "gpt", "value": answer}]}


def url(number: int) -> str:
    """Where picture `number` was fetched."""
    return str(curated_row(number)["url"])


def test_interleaved_captions_stand_behind_their_pictures(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(30)
    captions = {url_sample_id(url(number), caption_of(number)): caption_of(number) for number in range(30)}
    for layout in ("document", "turns", "list"):
        samples = make(workspace, "interleaved_caption", layout, shards=["photos"], layout=layout)
        assert all(3 <= sample.num_media <= 8 for sample in samples)
        for sample in samples:
            wanted = [captions[parent] for parent in sample.parents]
            if layout == "document":
                assert text_of(sample) == "\n".join(f"‹{k}›{caption}" for k, caption in enumerate(wanted))
                assert sample.turns == ()
            elif layout == "turns":
                assert text_of(sample) == "".join(f"‹{k}›{caption}" for k, caption in enumerate(wanted))
                assert len(sample.turns) == 2 * len(wanted)
            else:
                listed = "\n".join(f"Image {k}: {caption}" for k, caption in enumerate(wanted, 1))
                assert text_of(sample).endswith(listed)


def test_selective_asks_for_one_and_answers_with_its_caption(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(40)
    captions = {url_sample_id(url(number), caption_of(number)): caption_of(number) for number in range(40)}
    for sample in make(workspace, "selective_caption", shards=["photos"]):
        target = sample.meta["target"]
        assert sample.num_media == 4
        assert sample.segments[-1].text == captions[sample.parents[target]]
        asked = sample.segments[-2].text or ""
        assert str(target + 1) in asked or kth(target + 1, "en") in asked


@pytest.mark.parametrize(
    ("number", "english", "chinese"),
    [(1, "first", "第一"), (11, "11th", "第十一"), (22, "22nd", "第二十二"), (100, "100th", "第100")],
)
def test_places_have_words(number: int, english: str, chinese: str) -> None:
    assert (kth(number, "en"), kth(number, "zh")) == (english, chinese)


def test_chinese_captions_get_chinese_words(workspace: Path, photos: Callable[..., Path]) -> None:
    rows = [curated_row(number, caption=f"一只狗在草地上奔跑{number}") for number in range(8)]
    write_shards(workspace, "photos", rows)
    both = make(workspace, "selective_caption", "both", shards=["photos"], languages=["en", "zh"])
    assert all("图片" in text_of(sample) for sample in both)
    english = make(workspace, "selective_caption", "english", shards=["photos"])
    assert all("Image 1" in text_of(sample) for sample in english)


def test_a_needle_stands_at_every_depth_of_every_length(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(60)
    fields = {"lengths": [10, 20], "depths": 5, "count": 20, "max_uses": 20, "images": [10, 20]}
    samples = make(workspace, "long_image", shards=["photos"], **fields)
    cells = {(sample.num_media, sample.meta["depth"]) for sample in samples}
    assert cells == {(length, depth) for length in (10, 20) for depth in range(5)}
    for sample in samples:
        part = sample.num_media / 5
        assert part * sample.meta["depth"] <= sample.meta["target"] < part * (sample.meta["depth"] + 1)


def test_find_asks_for_the_number_of_a_caption(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(40)
    for sample in make(workspace, "long_image", shards=["photos"], images=[10, 10], task="find"):
        assert sample.segments[-1].text == str(sample.meta["target"] + 1)


def test_find_refuses_a_caption_that_fits_twice(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(40, caption="the same")
    with pytest.raises(InputError, match="caption_repeated"):
        make(workspace, "long_image", shards=["photos"], images=[10, 10], task="find")


def test_questions_find_their_pictures_by_url(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(5)
    rows = [
        question(url(3)),
        question(url(4).replace("http://photos", "HTTP://PHOTOS")),
        question("http://elsewhere/1.jpg"),
    ]
    samples = make(workspace, "instruct", shards=["photos"], files=[write_json(workspace, rows)])
    assert [text_of(sample) for sample in samples] == ["‹0›What colour?red"] * 2
    assert samples[0].parents == (url_sample_id(url(3), caption_of(3)),)
    assert reasons(workspace) == {"missing_media": 1}


def test_local_pictures_are_found_under_their_root_only(workspace: Path) -> None:
    root = workspace / "media"
    (root / "deep").mkdir(parents=True)
    (root / "deep/1.png").write_bytes(picture(1))
    (workspace / "secret.png").write_bytes(picture(2))
    (root / "link.png").symlink_to(workspace / "secret.png")
    names = [
        "deep/1.png",
        "../secret.png",
        str(workspace / "secret.png"),
        "deep/../../secret.png",
        "link.png",
        "C:/x.png",
        "none.png",
    ]
    file = write_json(workspace, [question(name) for name in names])
    samples = make(workspace, "instruct", files=[file], media_root="media", max_drop_fraction=1.0)
    assert len(samples) == 1
    assert reasons(workspace) == {"missing_media": 1, "unsafe_path": 5}


def test_names_that_are_no_files_are_missing(workspace: Path) -> None:
    """A folder is no picture, a pipe would be read for ever, and no file has a name of 5,000 letters."""
    root = workspace / "media"
    (root / "folder").mkdir(parents=True)
    (root / "1.png").write_bytes(picture(1))
    os.mkfifo(root / "pipe.png")
    names = ["1.png", ".", "folder", "pipe.png", "a" * 5000, "a/" * 3000, "\ud83d.png"]
    file = write_json(workspace, [question(name) for name in names])
    assert len(make(workspace, "instruct", files=[file], media_root="media", max_drop_fraction=1.0)) == 1
    assert reasons(workspace) == {"missing_media": 6}


def test_values_that_json_has_no_word_for_do_not_stop_a_build(workspace: Path) -> None:
    (workspace / "qa.jsonl").write_text(
        '{"id": NaN, "score": Infinity, "conversations": [{"from": "human", "value": "What?\\ud83d"}, '
        '{"from": "gpt", "value": "That.\\udc00"}]}\n'
    )
    row = {"when": datetime(2026, 1, 2, tzinfo=UTC), "price": Decimal("1.5"), "score": math.nan}
    said = [{"from": "human", "value": "Where?"}, {"from": "gpt", "value": "There."}]
    pq.write_table(pa.Table.from_pylist([row | {"conversations": said}]), workspace / "qa.parquet")
    made = make(workspace, "text", files=["qa.jsonl", "qa.parquet"])
    assert [text_of(sample) for sample in made] == ["What?That.", "Where?There."]


def test_pictures_may_be_spelt_out_in_the_row(workspace: Path) -> None:
    uri = f"data:image/png;base64,{b64encode(picture(1)).decode()}"
    asked = [{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "What colour?"}]
    talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": "Red."}]
    broken = [question(text) for text in ("data:image/png;base64,?", "data:image/png;base64,", "data:,x")]
    file = write_json(workspace, [{"messages": talk}, question(uri), *broken])
    made = make(workspace, "instruct", files=[file], max_drop_fraction=1.0)
    assert [sample.parents for sample in made] == [(f"sha256:{sha256(picture(1)).hexdigest()}",)] * 2
    assert reasons(workspace) == {"wrong_type": 3}


def test_pictures_nobody_checked_before_are_checked(workspace: Path) -> None:
    (workspace / "media").mkdir()
    frames = [Image.new("RGB", (8, 8), (80 * index, 0, 0)) for index in range(3)]
    animation = io.BytesIO()
    frames[0].save(animation, "GIF", save_all=True, append_images=frames[1:])
    files = {
        "good.png": picture(1),
        "moving.gif": animation.getvalue(),
        "page.jpg": b"<html>not found</html>",
        "cut.jpg": picture(1, (300, 300), "JPEG")[:-20000],
        "empty.jpg": b"",
    }
    for name, data in files.items():
        (workspace / "media" / name).write_bytes(data)
    file = write_json(workspace, [question(name) for name in files])
    make(workspace, "instruct", files=[file], media_root="media", max_drop_fraction=1.0)
    wanted = {"animated_image": 1, "missing_media": 1, "not_an_image": 1, "truncated_image": 1}
    assert reasons(workspace) == wanted


def test_pictures_inside_a_parquet_file_are_taken_from_there(workspace: Path) -> None:
    texts = [{"user": "What do they give out?", "assistant": "Answer: B", "source": "AI2D"}]
    pq.write_table(
        pa.Table.from_pylist([{"images": [{"bytes": picture(1), "path": None}], "texts": texts}]),
        workspace / "c.parquet",
    )
    samples = make(workspace, "instruct", files=["c.parquet"])
    assert text_of(samples[0]) == "‹0›What do they give out?Answer: B"
    assert samples[0].meta["source_set"] == "AI2D"
    with pytest.raises(InputError, match="bytes stand in the instruction file"):
        make(workspace, "instruct", "refs", files=["c.parquet"], store="references")


def test_pages_lose_missing_pictures_when_asked(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(3)
    page = {"images": [url(0), None, "http://gone/1.jpg", None], "texts": [None, "One.", None, "Two."]}
    gone = {"images": ["http://gone/1.jpg", None], "texts": [None, "Only text is left."]}
    file = write_json(workspace, [page, gone])
    fields = {"shards": ["photos"], "files": [file], "max_drop_fraction": 1.0}
    samples = make(workspace, "instruct", on_missing="shrink", **fields)
    assert [text_of(sample) for sample in samples] == ["‹0›One.\nTwo."]
    assert samples[0].kind == "interleaved"
    assert samples[0].meta["missing"] == 1
    assert reasons(workspace) == {"too_few_images": 1}
    with pytest.raises(InputError, match="missing_media 2"):
        make(workspace, "instruct", "dropping", **fields)


def test_rows_of_another_kind_are_left_to_their_builder(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(3)
    clip = {"video": "http://clips/1.mp4", "conversations": question("", "<video>What?")["conversations"]}
    words = {"conversations": question("", "Hello", "Hi")["conversations"]}
    file = write_json(workspace, [question(url(0)), clip, words])
    kinds = [sample.kind for sample in make(workspace, "instruct", shards=["photos"], files=[file])]
    assert kinds == ["instruct", "text"]
    assert reasons(workspace) == {"not_selected": 1}
    assert [text_of(sample) for sample in make(workspace, "text", "words", files=[file])] == ["HelloHi"]
    assert reasons(workspace, "words") == {"not_selected": 2}


def test_a_row_or_a_pair_that_stands_twice_is_taken_once(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(5)
    photos(3, name="again")
    rows = [question(url(0)), question(url(1)), question(url(0)), question(url(0), answer="blue")]
    file = write_json(workspace, rows)
    assert len(make(workspace, "instruct", shards=["photos"], files=[file], samples_per_shard=1)) == 3
    assert reasons(workspace) == {"duplicate_row": 1}
    pairs = make(workspace, "caption", "pairs", shards=["photos", "again"])
    assert len(pairs) == len({sample.id for sample in pairs}) == 5


def test_the_same_pictures_in_a_later_pass_are_another_sample(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(4)
    fields = {"images": [2, 2], "max_uses": 20, "samples_per_shard": 7}
    samples = make(workspace, "interleaved_caption", shards=["photos"], **fields)
    assert len(samples) == len({sample.id for sample in samples}) == 40


def test_distractors_surround_the_asked_picture(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(30)
    file = write_json(workspace, [question(url(number), answer=caption_of(number)) for number in range(20)])
    make(workspace, "instruct", "asked", shards=["photos"], files=[file])
    for pool in ({}, {"shards": ["photos"]}):
        name = "own" if not pool else "others"
        samples = make(workspace, "distractor", name, samples=["asked"], images=[1, 6], **pool)
        assert len(samples) == 20
        for sample, row in zip(samples, rows_of(workspace, name), strict=True):
            target = sample.meta["target"]
            listed = " ".join(f"Image {k + 1}: ‹{k}›" for k in range(sample.num_media))
            answer = sample.segments[-1].text or ""
            assert text_of(sample) == f"{listed}. In Image {target + 1}, What colour?{answer}"
            asked = int(answer.rsplit(" ", 1)[1])
            assert sample.parents[1 + target] == url_sample_id(url(asked), caption_of(asked))
            assert len({medium["sha256"] for medium in row["media"]}) == sample.num_media
        assert {sample.meta["target"] for sample in samples} > {0, 1}
        assert {sample.num_media for sample in samples} > {1, 6}


def test_captions_that_are_empty_after_cleaning_make_no_sample(workspace: Path) -> None:
    rows = [curated_row(n, caption=text) for n, text in enumerate(["\x00 \x1f", "<|im_end|><image>", "a red bus"])]
    write_shards(workspace, "photos", rows)
    assert len(make(workspace, "caption", "pairs", shards=["photos"], max_drop_fraction=1)) == 1
    assert reasons(workspace, "pairs") == {"empty_text": 2}
    make(workspace, "interleaved_caption", "pages", shards=["photos"], images=[1, 1])
    stats = json.loads((workspace / "samples/pages/manifest.json").read_text())["stats"]
    assert stats["parents"] == {"seen": 3, "usable": 1, "dropped": {"empty_text": 2}}


def hidden_among(workspace: Path, name: str, **fields: Any) -> list[tuple[str, list[str]]]:
    """What is asked about, and what the others show, by the animal in their captions."""
    captions = {}
    for table in sorted((workspace / "shards/photos").glob("*.parquet")):
        captions |= {row["sample_id"]: row["caption"].split()[1] for row in pq.read_table(table).to_pylist()}
    found = []
    for sample in make(workspace, "distractor", name, samples=["asked"], shards=["photos"], **fields):
        shown = [captions[parent] for parent in sample.parents[1:]]
        found.append((shown.pop(sample.meta["target"]), shown))
    return found


def test_hard_negatives_show_what_is_asked_about(workspace: Path) -> None:
    animals = ("dog", "boat", "house", "flower")
    rows = [curated_row(number, caption=f"a {animals[number % 4]} is here, view {number}") for number in range(80)]
    write_shards(workspace, "photos", rows)
    asked = [question(row["url"], answer=f"A {animals[n % 4]}.") for n, row in enumerate(rows[:40])]
    make(workspace, "instruct", "asked", shards=["photos"], files=[write_json(workspace, asked)])
    for target, others in hidden_among(workspace, "hard", images=[4, 6], policy="topic"):
        assert set(others) == {target}
    strangers = [
        other != target for target, others in hidden_among(workspace, "any", images=[4, 6]) for other in others
    ]
    assert sum(strangers) > len(strangers) / 2
    # Ten questions and twenty pictures of each animal: under a cap of 5, hard ones serve twice, so 4 for each question.
    capped = make(
        workspace,
        "distractor",
        "capped",
        samples=["asked"],
        shards=["photos"],
        images=[6, 6],
        policy="topic",
        max_uses=5,
    )
    uses = Counter(
        parent for sample in capped for place, parent in enumerate(sample.parents[1:]) if place != sample.meta["target"]
    )
    assert max(uses.values()) <= 5
    assert {sample.meta["hard"] for sample in capped} <= {3, 4}
    assert {sample.num_media for sample in capped} == {6}


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("MIND THE GAP", "MIND THE GAP"),
        ("[1] Mind the gap", "[1] Mind the gap"),
        ("[2024]", "[2024]"),
        ('["MIND", " THE", "GAP"]', "MIND THE GAP"),
        ('[{"utf8_string": "GAP", "bbox": [1, 2]}, {"utf8_string": "."}]', "GAP"),
        ('[{"transcription": "###"}]', ""),
    ],
)
def test_ocr_fields_are_read_as_corpora_write_them(field: str, text: str) -> None:
    assert ocr_text(field) == text


def test_words_of_an_ocr_program_are_read_from_list_columns(workspace: Path) -> None:
    rows = [curated_row(0, src_ocr_tokens=["MIND", "THE", "GAP"]), curated_row(1, src_ocr_tokens=[])]
    write_shards(workspace, "signs", rows)
    (sample,) = make(workspace, "text_reading", shards=["signs"], text_column="src_ocr_tokens")
    assert "MIND THE GAP" in (sample.segments[-1].text or "")
    assert reasons(workspace) == {"empty_text": 1}


def test_text_in_pictures_is_read_and_summed_up(workspace: Path) -> None:
    rows = [
        curated_row(number, src_ocr=f"MIND THE GAP {number}", src_points="1. Mind.\n2. Gap.") for number in range(30)
    ]
    rows += [curated_row(40, src_ocr="", src_points="")]
    write_shards(workspace, "signs", rows)
    samples = make(workspace, "text_reading", shards=["signs"], key_points_column="src_points")
    tasks = [sample.meta["task"] for sample in samples]
    assert 5 < tasks.count("read") < 25
    for number, sample in enumerate(samples):
        wanted = f"MIND THE GAP {number}" if sample.meta["task"] == "read" else "1. Mind.\n2. Gap."
        assert wanted in (sample.segments[-1].text or "")
    assert reasons(workspace) == {"empty_text": 1}


def test_the_same_topic_stands_together(workspace: Path) -> None:
    animals = ("dog", "boat", "house", "flower")
    rows = [curated_row(number, caption=f"a {animals[number % 4]} is here, view {number}") for number in range(80)]
    write_shards(workspace, "photos", rows)

    def alike(policy: str) -> float:
        samples = make(workspace, "interleaved_caption", policy, shards=["photos"], images=[4, 4], policy=policy)
        words = [{word for word in animals if word in text_of(sample)} for sample in samples]
        return sum(len(found) == 1 for found in words) / len(words)

    assert alike("topic") == 1.0
    assert alike("random") < 0.3


def test_embedding_neighbours_stand_together(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(64)
    ids = pa.concat_tables(
        [pq.read_table(path, columns=["sample_id"]) for path in sorted((workspace / "shards/photos").glob("*.parquet"))]
    )
    names = ids["sample_id"].to_pylist()
    vectors = [[10.0 if number % 2 else -10.0, number % 7 / 100, 0.01] for number in range(64)]
    pq.write_table(pa.table({"sample_id": names, "embedding": vectors}), workspace / "e.parquet")
    side = {name: number % 2 for number, name in enumerate(names)}
    fields = {"policy": "embedding", "embeddings": "e.parquet", "images": [4, 4]}
    samples = make(workspace, "interleaved_caption", shards=["photos"], **fields)
    mixed = sum(len({side[parent] for parent in sample.parents}) > 1 for sample in samples)
    assert mixed <= 8
    pq.write_table(pa.table({"sample_id": names[1:], "embedding": vectors[1:]}), workspace / "e.parquet")
    with pytest.raises(InputError, match=f"no embedding for {names[0]}"):
        make(workspace, "interleaved_caption", "again", shards=["photos"], **fields)


def test_costs_are_those_of_the_template(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(3)
    samples = make(workspace, "caption", shards=["photos"], prompt=True)
    tokenizer = TextTokenizer.load(workspace / "tokenizers/tiny")
    for sample, row in zip(samples, rows_of(workspace), strict=True):
        chunks = render(sample.segments, sample.turns, release="241101")
        assert row["text_tokens"] == sum(len(tokenizer.encode(chunk.text)) for chunk in chunks)
        assert row["trained_tokens"] == sum(len(tokenizer.encode(chunk.text)) for chunk in chunks if chunk.trained)
        cut = render(sample.segments, sample.turns, release="241101", grids={0: (2, 3)})
        assert row["tiles"] == [7]
        assert row["cut_tokens"] == sum(len(tokenizer.encode(chunk.text)) for chunk in cut)


def test_materialized_references_are_what_copying_would_have_made(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(12)
    make(workspace, "interleaved_caption", "refs", shards=["photos"], store="references")
    make(workspace, "interleaved_caption", "bytes", shards=["photos"])
    made = materialize(workspace, "refs", "copied")
    assert (workspace / "samples/copied/00000.tar").read_bytes() == (workspace / "samples/bytes/00000.tar").read_bytes()
    assert materialize(workspace, "refs", "copied").digest == made.digest
    (workspace / "shards/photos/00000.tar").write_bytes(b"")
    with pytest.raises(InputError, match="is gone"):
        materialize(workspace, "refs", "again")


def test_a_killed_copy_of_references_goes_on_only_with_the_same_samples(
    workspace: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(20)
    make(workspace, "caption", "made", shards=["photos"], store="references", samples_per_shard=5)
    copy, copied = materialize_module._copy_shard, list[str]()

    def dying_copy(index: Path, *rest: Any) -> None:
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(index.stem)
        copy(index, *rest)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(materialize_module, "_copy_shard", dying_copy)
        materialize(workspace, "made", "copies")
    shutil.rmtree(workspace / "samples/made")
    make(workspace, "caption", "made", shards=["photos"], store="references", samples_per_shard=4)
    materialize(workspace, "made", "copies")
    assert [row["sample_id"] for row in index_of(workspace, "copies")] == [
        row["sample_id"] for row in index_of(workspace, "made")
    ]
    assert not (workspace / "samples/copies/.work").exists()


def test_the_shipped_recipe_shows_every_builder() -> None:
    recipe = load_recipe(RECIPES / "all-builders.yaml")
    kinds = {"caption", "interleaved_caption", "selective_caption", "long_image", "distractor", "video", "instruct"}
    assert {cfg.builder for cfg in recipe.build} == kinds | {"text", "text_reading"}


def test_templates_hold_both_languages_with_the_same_slots() -> None:
    from owl3.build.templates import load_templates

    for name in (
        "caption",
        "interleaved_caption",
        "selective_caption",
        "long_image",
        "distractor",
        "video",
        "text_reading",
    ):
        templates = load_templates(name)
        assert set(templates.words) == {"en", "zh"}
        assert templates.version


def test_other_words_give_other_ids(
    workspace: Path, photos: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from owl3.build import templates as module

    photos(4)
    before = {sample.id for sample in make(workspace, "selective_caption", "before", shards=["photos"])}
    newer = module.load_templates("selective_caption").model_copy(update={"version": "2"})
    monkeypatch.setattr("owl3.build.base.load_templates", lambda name: newer)
    after = make(workspace, "selective_caption", "after", shards=["photos"])
    assert after[0].builder_version == "1.2"
    assert before.isdisjoint(sample.id for sample in after)


def test_a_tokenizer_is_learned_from_captions_and_questions(workspace: Path, photos: Callable[..., Path]) -> None:
    photos(20)
    file = write_json(workspace, [question(url(0), answer="ultramarine ultramarine ultramarine")])
    cfg = TokenizerConfig(name="learned", shards=("photos",), files=(file,), vocab_size=420)
    manifest = make_tokenizer(cfg, workspace)
    assert manifest.kind == "tokenizer"
    assert manifest.counts.seen == 22
    assert make_tokenizer(cfg, workspace).digest == manifest.digest
    tokenizer = TextTokenizer.load(workspace / "tokenizers/learned")
    assert tokenizer.vocab_size <= 420
    assert len(tokenizer.encode(" number")) == 1


def test_a_tokenizer_may_be_given(workspace: Path, tokenizer_folder: Path) -> None:
    given = make_tokenizer(TokenizerConfig(name="given", folder=str(tokenizer_folder)), workspace)
    assert given.stats["tokenizer_digest"] == TextTokenizer.load(tokenizer_folder).digest
    with pytest.raises(InputError, match=r"holds neither tokenizer\.json"):
        make_tokenizer(TokenizerConfig(name="none", folder="nowhere"), workspace)
