"""What the caption tasks share. The paper gives no prompt for them: ours stands here and is part of their version.

CIDEr weighs words by how many pictures' references have them: scores under a `--limit` compare with each other alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from owl3.eval.items import Item, Medium, Parsed
from owl3.eval.metrics.captions import word_overlap
from owl3.eval.tasks._files import VIDEO_SUFFIXES, media_path

IMAGE_PROMPT = "Provide a one-sentence caption for the provided image."
VIDEO_PROMPT = "Provide a one-sentence caption for the provided video."
NUM_FRAMES = 8  # as in training on MSR-VTT and MSVD captions (facts §3.3)


def caption_items(media: Mapping[str, Medium], captions: Mapping[str, Iterable[str]], prompt: str) -> list[Item]:
    """One item per medium, its references as gold answers."""
    return [Item(name, (media[name], prompt), tuple(said), group=name) for name, said in captions.items()]


def clips(folder: Path, names: Iterable[str]) -> dict[str, Medium]:
    """Videos by name, wherever below the folder benchmarks keep them."""
    places = ("videos", "video", "TestVideo", "TrainValVideo")
    files = {name: media_path(folder, name, *places, suffixes=VIDEO_SUFFIXES) for name in names}
    return {name: Medium(file, num_frames=NUM_FRAMES) for name, file in files.items()}


def parse(item: Item, raw: str) -> Parsed:
    """The first line that was said."""
    lines = [line.strip() for line in raw.splitlines() if line.strip()]
    return Parsed(lines[0], "strict" if len(lines) == 1 else "lenient") if lines else Parsed(None, "failed")


def score(item: Item, answer: str | None) -> float | None:
    """Word overlap of this caption; the benchmark's figure, CIDEr, is made of all of them."""
    return word_overlap(answer or "", item.answers) if item.answers else None
