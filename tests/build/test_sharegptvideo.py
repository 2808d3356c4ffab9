"""ShareGPTVideo as it is shipped: folders of frames in two archives, captions and questions as conversations."""

import json
from pathlib import Path
from typing import Any

import pytest

from owl3.build.lint import lint
from owl3.build.run import build
from owl3.recipe import RECIPES, load_recipe
from owl3.samples import Sample
from owl3.shards import iter_samples
from tests.build.test_build_video import dropped, write_clip
from tests.build.world import picture

ROOT = "corpora/sharegptvideo"
TRAIN = f"{ROOT}/video_instruction/train"


def row(video: str, asked: str, said: str) -> dict[str, Any]:
    """As LLaVA-Hound's readers read them."""
    turns = [{"from": "human", "value": f"<video>\n{asked}"}, {"from": "gpt", "value": said}]
    return {"id": video, "video": video, "conversations": turns}


@pytest.fixture
def shipped(workspace: Path) -> Path:
    """The corpus: frames in both archives, one clip, a folder with too few frames, and names of nothing."""
    frames = {"train_300k/zzzE-Scene-003": 10, "train_600k/v_aB3": 12, "train_600k/v_short": 3}
    for folder, count in frames.items():
        (workspace / ROOT / folder).mkdir(parents=True)
        for number in range(count):
            (workspace / ROOT / folder / f"c01_{number:04d}.jpeg").write_bytes(picture(number, picture_format="JPEG"))
    write_clip(workspace / ROOT / "train_600k" / "v_clip.mp4", [10 * number for number in range(16)])
    names = ["zzzE-Scene-003", "v_aB3", "v_aB3.mp4", "v_clip.mp4", "v_clip", "v_short", "v_gone", "../v_aB3"]
    captions = [row(name, "Write a detailed description of this video.", f"It begins with {name}.") for name in names]
    questions = [row(name, f"What is in it, part {n}?", "A street.") for name in names[:2] for n in range(2)]
    for path, rows in (("pretrain/video_caption_pretrain", captions), ("sft/video_qa_240k", questions)):
        file = workspace / TRAIN / f"{path}.jsonl"
        file.parent.mkdir(parents=True)
        file.write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    return workspace


def made(workspace: Path, name: str) -> list[Sample]:
    """Build a set of the shipped recipe, with this workspace's tokenizer."""
    recipe = load_recipe(RECIPES / "sharegptvideo-frames.yaml", [f"build.{name}.tokenizer=tiny"])
    build(next(entry for entry in recipe.build if entry.name == name), workspace)
    assert lint(workspace / "samples" / name, workspace).findings == []
    return [
        Sample.model_validate_json(members["json"])
        for _, members in iter_samples(workspace / "samples" / name / "00000.tar")
    ]


def test_captions_are_of_eight_frames_from_either_archive_or_of_a_clip(shipped: Path) -> None:
    samples = made(shipped, "sharegptvideo")
    assert [sample.num_media for sample in samples] == [8] * 5
    assert [sample.segments[-1].text for sample in samples[:2]] == [
        "It begins with zzzE-Scene-003.",
        "It begins with v_aB3.",
    ]
    assert {sample.kind for sample in samples} == {"video"}
    assert {sample.source for sample in samples} == {"sharegptvideo"}
    assert dropped(shipped, "sharegptvideo") == {"missing_media": 1, "too_few_frames": 1, "unsafe_path": 1}


def test_a_name_of_a_clip_means_its_frames_where_only_they_are_there(shipped: Path) -> None:
    _, by_folder, by_clip, clip, clip_by_stem = made(shipped, "sharegptvideo")
    assert by_folder.parents == by_clip.parents and clip.parents == clip_by_stem.parents
    assert by_clip.meta["frames"]["times"] == "frame numbers" and "times" not in clip.meta["frames"]


def test_questions_about_one_clip_share_its_frames(shipped: Path) -> None:
    samples = made(shipped, "sharegptvideo-qa")
    assert [sample.num_media for sample in samples] == [8] * 4
    assert [len(sample.turns) for sample in samples] == [2] * 4
    assert samples[0].parents == samples[1].parents != samples[2].parents
    assert len({sample.id for sample in samples}) == 4
