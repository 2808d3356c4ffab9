"""The small world that `owl3 bench train` trains in: made on the spot, the same every time."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from owl3.manifest import Counts, write_manifest
from owl3.samples import Sample, Segment, Turn, short_hash
from owl3.shards import SAMPLE_INDEX, ShardWriter, write_index
from owl3.template import render, tokenize
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny
from owl3.train.stages import TrainRecipe

RELEASE = "241101"
SIDE_PX = 56
WORDS = "a red green blue square circle left of above two three small large".split()  # noqa: SIM905


def bench_recipe(name: str, engine: str, steps: int, *, pack: bool = True, **changes: Any) -> TrainRecipe:
    """One stage that trains a tiny model on the pairs, 64 at a time."""
    stage = {
        "name": "pretrain",
        "data": {
            "mixture": {"datasets": [{"name": "pairs"}], "max_epochs": 1000},
            "global_batch_size": 64,
            "steps": steps,
            "max_tokens": 256,
            "pack": pack,
        },
        "trainable": ["projector", "visual_kv", "language_model"],
        "learning_rate": {"max": 1e-3},
        "precision": "fp32",
        "engine": engine,
        "micro_batch_rows": 2 if pack else 16,
        "save_steps": steps,
        **changes,
    }
    model = {"preset": "tiny", "config": {"vision_config": {"image_size": SIDE_PX}}}
    return TrainRecipe.model_validate({"name": name, "tokenizer": {"name": "words"}, "model": model, "stages": [stage]})


def make_world(workspace: Path) -> None:
    """A tokenizer, and 128 captioned pictures; captions of 4 to 40 words."""
    if (workspace / "samples" / "pairs" / "manifest.json").is_file():
        return
    tokenizer = train_tiny([" ".join(WORDS)] * 3, 400)
    save_tokenizer(tokenizer, workspace / "tokenizers" / "words")
    write_manifest(workspace / "tokenizers" / "words", kind="tokenizer", name="words", counts=Counts(seen=1, kept=1))
    folder = workspace / "samples" / "pairs"
    folder.mkdir(parents=True, exist_ok=True)
    dice = np.random.default_rng(0)
    rows = []
    with ShardWriter(folder / "00000.tar") as tar:
        for position in range(128):
            caption = " ".join(dice.choice(WORDS, int(dice.integers(4, 41))).tolist())
            sample = _pair(position, caption)
            pixels = dice.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            picture = io.BytesIO()
            Image.fromarray(pixels).resize((320, 240)).save(picture, "JPEG")
            meta, medium = tar.add(sample.id, {"json": sample.to_json(), "0.jpg": picture.getvalue()})
            rows.append(_row(sample, position, tokenizer, (meta, medium)))
    write_index(folder / "00000.parquet", rows, SAMPLE_INDEX)
    write_manifest(
        folder,
        kind="samples",
        name="pairs",
        counts=Counts(seen=128, kept=128),
        stats={"tokenizer_digest": tokenizer.digest, "release": RELEASE, "tile_px": SIDE_PX},
    )


def _pair(number: int, caption: str) -> Sample:
    return Sample(
        id=short_hash("bench", str(number)),
        kind="image_text",
        segments=(Segment(image=0), Segment(text=caption)),
        turns=(Turn(role="user", start=0, end=1), Turn(role="assistant", start=1, end=2)),
        source="bench",
        licence="CC0-1.0",
        builder="bench",
        builder_version="1",
    )


def _row(sample: Sample, position: int, tokenizer: TextTokenizer, members: tuple[Any, Any]) -> dict[str, Any]:
    """The sample's index row, with the costs that the plan needs."""
    costs = {}
    for style, prefix in (("chat", ""), ("plain", "plain_")):
        text = tokenize(render(sample.segments, sample.turns, release=RELEASE, style=style), tokenizer)  # type: ignore[arg-type]
        costs[f"{prefix}text_tokens" if not prefix else "plain_tokens"] = len(text.input_ids)
        costs[f"{prefix}trained_tokens"] = sum(text.trained)
    meta, medium = members
    place = {"path": "samples/pairs/00000.tar", "offset": medium.offset, "bytes": medium.num_bytes}
    return {
        "sample_id": sample.id,
        "decision": "kept",
        "shard": "00000",
        "key": sample.id,
        "kind": sample.kind,
        "builder": sample.builder,
        "builder_version": "1",
        "seed": 0,
        "source": "bench",
        "licence": sample.licence,
        "parents": [],
        "position": position,
        "images": 1,
        "tiles": [1],
        "json_offset": meta.offset,
        "json_bytes": meta.num_bytes,
        "media": [{**place, "sha256": "", "width": 320, "height": 240}],
        **costs,
    }
