"""`owl3 bench train`: what the training loop costs beside the model, on this machine.

    python -m owl3.bench train --out FOLDER [steps=30]

A small world of its own (pictures, captions, a plan) is made in FOLDER, and one tiny stage is trained on it in
processes of their own: with plain torch and with DeepSpeed, packed and with a row per sample. What is told: seconds per
step of either engine, the share of a step spent waiting for data, real tokens among those computed, samples per second
packed against padded, and how a checkpoint is read against plain bytes.
"""

import io
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from owl3.data.plan import make_plan
from owl3.errors import InputError
from owl3.manifest import Counts, write_manifest
from owl3.planfile import Plan
from owl3.samples import Sample, Segment, Turn, short_hash
from owl3.shards import SAMPLE_INDEX, ShardWriter, write_index
from owl3.template import render, tokenize
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny
from owl3.train.stages import TrainRecipe, plan_folder, stage_folder

RELEASE = "241101"
SIDE_PX = 56
WORDS = "a red green blue square circle left of above two three small large".split()  # noqa: SIM905


def run(out: Path, steps: int = 30) -> dict[str, Any]:
    """Make the world, train it four ways, and write `train.json`."""
    workspace = out / "workspace"
    _make_samples(workspace)
    timings: dict[str, dict[str, float]] = {}
    for name, engine, pack in (
        ("torch", "torch", True),
        ("deepspeed", "deepspeed", True),
        ("a row per sample", "torch", False),
    ):
        recipe = _recipe(name.replace(" ", "-"), engine, pack, steps)
        make_plan(recipe.stages[0].data, workspace, run_name=recipe.name, stage="pretrain")
        timings[name] = _train(recipe, workspace)
    plan = Plan.open(plan_folder(workspace, "torch", "pretrain"))
    result = {
        "steps": steps,
        "seconds_per_step": {name: timing["step_s"] for name, timing in timings.items()},
        "data_wait": timings["torch"]["data_wait"],
        "deepspeed_over_torch": timings["deepspeed"]["step_s"] / timings["torch"]["step_s"],
        "packing_efficiency": plan.manifest.stats["packing_efficiency"],
        "packed_over_padded_samples_per_s": timings["a row per sample"]["step_s"] / timings["torch"]["step_s"],
        "checkpoint": _checkpoint_rate(stage_folder(workspace, "torch", "pretrain"), out),
    }
    (out / "train.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _recipe(name: str, engine: str, pack: bool, steps: int) -> TrainRecipe:
    stage = {
        "name": "pretrain",
        "data": {
            "mixture": {"datasets": [{"name": "pairs"}], "max_epochs": 1000},
            "global_batch_size": 32,
            "steps": steps,
            "max_tokens": 256,
            "pack": pack,
        },
        "trainable": ["projector", "visual_kv", "language_model"],
        "learning_rate": {"max": 1e-3},
        "precision": "fp32",
        "engine": engine,
        "micro_batch_rows": 4,
        "save_steps": steps,
    }
    model = {"preset": "tiny", "config": {"vision_config": {"image_size": SIDE_PX}}}
    return TrainRecipe.model_validate({"name": name, "tokenizer": {"name": "words"}, "model": model, "stages": [stage]})


def _train(recipe: TrainRecipe, workspace: Path) -> dict[str, float]:
    """Train in a process; return medians over the second half of the steps."""
    path = workspace / f"{recipe.name}.json"
    path.write_text(recipe.model_dump_json())
    command = ["--recipe", str(path), "--stage", "pretrain", "--workspace", str(workspace)]
    done = subprocess.run([sys.executable, "-m", "owl3.train", *command], check=False)
    if done.returncode:
        raise InputError(f"{path}: training ended with exit code {done.returncode}")
    lines = (stage_folder(workspace, recipe.name, "pretrain") / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines][len(lines) // 2 :]
    return {
        "step_s": statistics.median(record["seconds"] for record in records),
        "data_wait": statistics.median(record["data_wait"] for record in records),
    }


def _checkpoint_rate(folder: Path, out: Path) -> dict[str, float]:
    """Read the last checkpoint back as resuming does, against reading and writing its bytes plainly."""
    from owl3.train.checkpoint import state_reader

    checkpoint = sorted((folder / "checkpoints").glob("step-*"))[-1]
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    data = [path.read_bytes() for path in files]
    size = sum(map(len, data))
    began = time.perf_counter()
    with (out / "plain.bin").open("wb") as handle:
        for part in data:
            handle.write(part)
        handle.flush()
        os.fsync(handle.fileno())
    written_s = time.perf_counter() - began
    began = time.perf_counter()
    state_reader(checkpoint)
    read_s = time.perf_counter() - began
    (out / "plain.bin").unlink()
    return {"bytes": size, "plain_write_bytes_per_s": size / written_s, "open_s": read_s}


def _make_samples(workspace: Path) -> None:
    """128 captioned pictures; captions of 4 to 40 words."""
    if (workspace / "samples" / "pairs" / "manifest.json").is_file():
        return
    tokenizer = train_tiny([" ".join(WORDS)] * 3, 400)
    save_tokenizer(tokenizer, workspace / "tokenizers" / "words")
    write_manifest(workspace / "tokenizers" / "words", kind="tokenizer", name="words", counts=Counts(seen=1, kept=1))
    folder = workspace / "samples" / "pairs"
    folder.mkdir(parents=True)
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
