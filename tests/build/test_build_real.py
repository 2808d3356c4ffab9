"""All kinds of builders on the real data beside the repository; skipped where it is absent."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from owl3.build.config import BUILD_CONFIG, TokenizerConfig
from owl3.build.inspect import as_text, show_samples
from owl3.build.lint import lint
from owl3.build.run import build
from owl3.build.tokenizer import make_tokenizer
from owl3.manifest import Manifest
from owl3.tokens import TextTokenizer
from tests.build.world import write_shards
from tests.conftest import SHARED

pytestmark = pytest.mark.shared
Find = Callable[[str], Path]


def real_row(path: Path, url: str, caption: str, **more: Any) -> dict[str, Any]:
    """A curated row of a real picture."""
    data = path.read_bytes()
    image = Image.open(io.BytesIO(data))
    extension = {"JPEG": "jpg", "PNG": "png"}[str(image.format)]
    common = {"decision": "kept", "reason": None, "source": "real", "licence": "unknown", "extension": extension}
    return common | {"url": url, "caption": caption, "data": data, "width": image.width, "height": image.height} | more


@pytest.fixture(scope="session")
def real_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 COCO photos with two captions each, and 30 web pictures, as shard sets."""
    if not (SHARED / "data/coco").is_dir():
        pytest.skip("needs ../shared/data, which is not on this machine")
    workspace = tmp_path_factory.mktemp("real")
    coco = SHARED / "data/coco"
    notes = json.loads((coco / "annotations/captions_train2017.json").read_text())
    captions: dict[int, list[str]] = {}
    for note in notes["annotations"]:
        captions.setdefault(note["image_id"], []).append(note["caption"])
    rows = []
    for image in notes["images"][:30]:
        path = coco / "train2017" / image["file_name"]
        rows += [real_row(path, image["coco_url"], text) for text in captions[image["id"]][:2]]
    write_shards(workspace, "coco", rows, per_shard=50)
    web = SHARED / "data/laion_cc_sbu_pairs"
    pairs = json.loads((web / "blip_laion_cc_sbu.subset.json").read_text())[:30]
    rows = [
        real_row(web / "images" / pair["image"], f"http://web.test/{pair['image']}", pair["conversations"][1]["value"])
        for pair in pairs
    ]
    write_shards(workspace, "web", rows, per_shard=50)
    return workspace


@pytest.fixture
def world(workspace: Path, real_shards: Path) -> Path:
    """A workspace with the tiny tokenizer and the real pictures."""
    (workspace / "shards").mkdir()
    for name in ("coco", "web"):
        (workspace / "shards" / name).symlink_to(real_shards / "shards" / name)
    return workspace


def made(workspace: Path, builder: str, **fields: Any) -> Manifest:
    """Build a set, and find nothing wrong with it."""
    base = {"name": "made", "tokenizer": "tiny", "builder": builder}
    manifest = build(BUILD_CONFIG.validate_python(base | fields), workspace)
    report = lint(workspace / "samples" / manifest.name, workspace)
    assert report.findings == []
    assert report.checked == manifest.counts.kept
    return manifest


def test_photos_and_web_pictures_in_several_pictures_per_sample(world: Path) -> None:
    pairs = made(world, "caption", name="pairs", shards=["coco", "web"])
    assert (pairs.counts.seen, pairs.counts.kept) == (90, 90)
    together = made(
        world, "interleaved_caption", name="together", shards=["coco", "web"], images=[3, 6], policy="topic"
    )
    assert together.stats["parents"] == {"seen": 90, "usable": 60, "dropped": {"duplicate_exact": 30}}
    assert set(together.stats["images_per_sample"]) == {"3", "4", "5", "6"}
    made(world, "long_image", name="long", shards=["coco", "web"], images=[20, 50], count=2, max_uses=2)
    sheet = world / "sheet.png"
    shown = show_samples(world / "samples/together", world, random=3, sheet=sheet)
    assert Image.open(sheet).size[0] == 1200
    assert "‹image 0:" in as_text(shown[0])


def test_costs_are_counted_with_the_real_tokenizer(world: Path, shared_data: Find) -> None:
    make_tokenizer(TokenizerConfig(name="qwen2", folder=str(shared_data("data/tokenizer_qwen2"))), world)
    made(world, "caption", shards=["web"], tokenizer="qwen2")
    shown = show_samples(world / "samples/made", world, random=1)[0]
    # system 4 + user header 5 + placeholder 5 + end 1 + assistant header 4 + caption + end of turn and of text 2
    caption = TextTokenizer.load(world / "tokenizers/qwen2").encode(shown.sample.segments[1].text or "")
    assert shown.row["trained_tokens"] == len(caption) + 2
    assert 15 <= shown.row["text_tokens"] - shown.row["trained_tokens"] <= 20


def test_multi_image_conversations_of_mantis(world: Path, shared_data: Find) -> None:
    folder = shared_data("data/multi_image_instruct/mantis_chat")
    manifest = made(world, "instruct", files=[str(folder / "train.json")], media_root=str(folder))
    assert manifest.counts.model_dump() == {"seen": 60, "kept": 60, "dropped": {}}
    assert manifest.stats["images"] == 223


def test_llama_factory_messages_with_pictures_and_clips(world: Path, shared_data: Find) -> None:
    folder = shared_data("data/multi_image_instruct/llamafactory_mllm_demo")
    still = made(world, "instruct", name="still", files=[str(folder / "mllm_demo.json")], media_root=str(folder))
    assert (still.counts.kept, still.stats["images"]) == (6, 8)
    moving = made(world, "video", name="moving", files=[str(folder / "mllm_video_demo.json")], media_root=str(folder))
    assert (moving.counts.kept, moving.stats["images"]) == (3, 24)


def test_dialogues_about_real_clips(world: Path, shared_data: Find) -> None:
    folder = shared_data("data/videos/mantis_videochat")
    manifest = made(world, "video", files=[str(folder / "train.json")], media_root=str(folder))
    assert (manifest.counts.kept, manifest.stats["images_per_sample"]) == (9, {"8": 9})


def test_a_minute_of_test_card_has_true_times(world: Path, shared_data: Find) -> None:
    data = shared_data("data/videos/av_sync/sync_test.mp4").read_bytes()
    row = {"url": "http://clips.test/sync.mp4", "caption": "a test card", "data": data, "extension": "mp4"}
    common = {"decision": "kept", "reason": None, "source": "sync", "licence": "BSD-3-Clause"}
    write_shards(world, "clips", [common | row])
    made(world, "video", shards=["clips"], frames={"policy": "fps", "fps": 1, "count": 128})
    shown = show_samples(world / "samples/made", world, random=1)[0]
    times = [segment.time_s for segment in shown.sample.segments if segment.time_s is not None]
    assert len(times) == 63
    assert times == pytest.approx([second + 0.5 for second in range(63)], abs=0.04)


def test_real_pages_in_both_layouts_are_the_same_documents(world: Path, shared_data: Find) -> None:
    folder = shared_data("data/interleaved")
    pages = [json.loads(line) for line in (folder / "real_pages_mmc4_layout.jsonl").read_text().splitlines()]
    names = {info["raw_url"]: info["image_name"] for page in pages for info in page["image_info"]}
    write_shards(world, "pages", [real_row(folder / "images" / name, url, "") for url, name in names.items()])
    texts = []
    for layout in ("mmc4", "obelics"):
        file = str(folder / f"real_pages_{layout}_layout.jsonl")
        manifest = made(world, "instruct", name=layout, files=[file], shards=["pages"], on_missing="shrink")
        assert (manifest.counts.kept, manifest.stats["images"]) == (7, 55)
        shown = show_samples(world / "samples" / layout, world, random=7)
        texts.append([" ".join(segment.text or "" for segment in each.sample.segments).split() for each in shown])
    assert texts[0] == texts[1]


def test_the_one_real_mmc4_document_has_no_pictures_here(world: Path, shared_data: Find) -> None:
    file = str(shared_data("data/interleaved/mmc4_readme_example.jsonl"))
    with pytest.raises(Exception, match="missing_media 1"):
        made(world, "instruct", files=[file])
