"""A small workspace, written with the contract's own writers: from a source of pictures to built samples."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from PIL import Image

from owl3.cards.config import CardConfig
from owl3.cards.rederive import TokenCounter
from owl3.cards.render import card
from owl3.config import canonical_json
from owl3.curate.table import EVIDENCE_TABLE, SHARD_TABLE, member_json
from owl3.data.mixture import DatasetConfig, MixtureConfig
from owl3.data.plan import PlanConfig, make_plan
from owl3.manifest import Counts, Manifest, write_manifest
from owl3.media import perceptual_hash
from owl3.planfile import Plan
from owl3.samples import (
    Sample,
    Segment,
    Turn,
    built_sample_id,
    canonical_url,
    url_sample_id,
)
from owl3.shards import SAMPLE_INDEX, ShardWriter, write_index, write_table
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny

HOSTS = (
    "photos.owl3.test",
    "stall.owl3.test",
    "robots.owl3.test",
    "birds.example.org",
    "a.example.net",
)
LICENCES = ("CC0-1.0", "CC-BY-4.0")
DROPS = {
    7: ("fetch", "not_found"),
    13: ("fetch", "timeout"),
    19: ("rights", "robots_disallowed"),
    23: ("dedup", "duplicate_exact"),
}
NUM_URLS = 30
SHARD_ROWS = 10
GLOBAL_BATCH = 4


def picture(number: int, width: int = 48, height: int = 32) -> bytes:
    image = Image.new(
        "RGB",
        (width + number % 5, height),
        ((number * 37) % 256, (number * 91) % 256, 200),
    )
    image.paste((255, 255, 255), (4, 4, 12 + number % 8, 20))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


def caption(number: int) -> str:
    return f"scene {number} with {'a white box ' * (1 + number % 3)}".strip()


def url(number: int) -> str:
    return f"http://{HOSTS[number % len(HOSTS)]}/pictures/{number}.jpg"


def make_source(workspace: Path, name: str = "tiny") -> Manifest:
    folder = workspace / "sources" / name
    rows = [
        {
            "sample_id": url_sample_id(url(n), caption(n)),
            "url": url(n),
            "caption": caption(n),
            "licence": LICENCES[n % 2],
        }
        for n in range(NUM_URLS)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "urls-00000.parquet", pa.Table.from_pylist(rows))
    counts = Counts(seen=NUM_URLS, kept=NUM_URLS)
    return write_manifest(folder, kind="source", name=name, counts=counts, recipe={"name": name})


def make_shards(workspace: Path, source: Manifest, name: str = "tiny") -> Manifest:
    folder = workspace / "shards" / name
    kept, drops = 0, dict[str, int]()
    for shard_number in range(NUM_URLS // SHARD_ROWS):
        shard = f"{shard_number:05d}"
        rows: list[dict[str, Any]] = []
        with ShardWriter(folder / f"{shard}.tar") as tar:
            for number in range(shard_number * SHARD_ROWS, (shard_number + 1) * SHARD_ROWS):
                if number in DROPS:
                    rows.append(_dropped_row(number, shard))
                    drops[DROPS[number][1]] = drops.get(DROPS[number][1], 0) + 1
                else:
                    rows.append(_kept_row(tar, number, shard))
                    kept += 1
        write_index(folder / f"{shard}.parquet", rows, SHARD_TABLE)
        asked = [{"sample_id": row["sample_id"], "url": row["url"], "time": "2026-11-20T10:00:00Z"} for row in rows]
        write_index(folder / f"{shard}_evidence.parquet", asked, EVIDENCE_TABLE)
    counts = Counts(seen=NUM_URLS, kept=kept, dropped=dict(sorted(drops.items())))
    recipe, volatile = {"name": name}, ["*_evidence.parquet"]
    return write_manifest(
        folder, kind="shards", name=name, counts=counts, parents=[source], recipe=recipe, volatile=volatile
    )


def _dropped_row(number: int, shard: str) -> dict[str, Any]:
    stage, reason = DROPS[number]
    row = _shard_row(number, shard) | {"decision": "dropped", "stage": stage, "reason": reason}
    if reason == "duplicate_exact":
        row |= {"duplicate_of": url_sample_id(url(number - 1), caption(number - 1))}
    if reason == "robots_disallowed":
        row |= {"rights_signal": "robots.txt", "rights_value": "Disallow: /"}
    return row


def _kept_row(tar: ShardWriter, number: int, shard: str) -> dict[str, Any]:
    """Write the members as curation does: KEY.jpg, KEY.txt, KEY.json with the row itself."""
    data = picture(number)
    digest = hashlib.sha256(data).hexdigest()
    row = _shard_row(number, shard)
    row |= {"decision": "kept", "key": row["sample_id"], "media_sha256": digest, "sha256": digest}
    with Image.open(io.BytesIO(data)) as image:
        row |= {"width": image.width, "height": image.height, "phash": perceptual_hash(image.convert("L"))}
    row |= {"format": "jpeg", "extension": "jpg", "bytes": len(data), "http_status": 200, "status": "success"}
    members = {"jpg": data, "txt": caption(number).encode(), "json": canonical_json(member_json(row))}
    jpg, _, side = tar.add(row["sample_id"], members)
    row |= {"media_offset": jpg.offset, "media_bytes": jpg.num_bytes}
    return row | {"json_offset": side.offset, "json_bytes": side.num_bytes}


def _shard_row(number: int, shard: str) -> dict[str, Any]:
    return {
        "sample_id": url_sample_id(url(number), caption(number)),
        "url": url(number),
        "canonical_url": canonical_url(url(number)),
        "domain": urlsplit(url(number)).hostname,
        "caption": caption(number),
        "language": "en",
        "licence": LICENCES[number % 2],
        "source": "tiny",
        "shard": shard,
        "position": number,
    }


def make_tokenizer(workspace: Path, shards: Manifest) -> Manifest:
    folder = workspace / "tokenizers" / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    save_tokenizer(train_tiny([caption(n) for n in range(NUM_URLS)], 400), folder)
    counts = Counts(seen=NUM_URLS, kept=NUM_URLS)
    recipe = {"name": "tiny"}
    return write_manifest(
        folder, kind="tokenizer", name="tiny", counts=counts, recipe=recipe, parents=[shards.as_parent()]
    )


def make_samples(workspace: Path, shards: Manifest, tokenizer: Manifest, name: str = "pairs") -> Manifest:
    """Interleaved samples of three pictures each; the pictures that do not fill a sample are dropped."""
    folder = workspace / "samples" / name
    numbers = [n for n in range(NUM_URLS) if n not in DROPS]
    text = TextTokenizer.load(workspace / "tokenizers" / "tiny")
    counter = TokenCounter(text, "241101", 32)
    rows: list[dict[str, Any]] = []
    with ShardWriter(folder / "00000.tar") as tar:
        for start in range(0, len(numbers) - 2, 3):
            rows.append(_add_built(tar, numbers[start : start + 3], counter))
    kept = len(rows)
    rows.append(
        {
            "sample_id": built_sample_id("interleaved_caption", "1", 0, ("left",)),
            "decision": "dropped",
            "reason": "too_few_images",
            "shard": "00000",
            "kind": "interleaved",
            "builder": "interleaved_caption",
            "builder_version": "1",
            "seed": 0,
            "source": "tiny",
            "licence": "CC0-1.0",
            "parents": [],
        }
    )
    write_index(folder / "00000.parquet", rows, SAMPLE_INDEX)
    stats = {"tokenizer_digest": text.digest, "release": "241101", "tile_px": 32}
    counts = Counts(seen=kept + 1, kept=kept, dropped={"too_few_images": 1})
    return write_manifest(
        folder,
        kind="samples",
        name=name,
        counts=counts,
        parents=[tokenizer, shards],
        recipe={"name": name},
        stats=stats,
    )


def _add_built(tar: ShardWriter, numbers: list[int], counter: TokenCounter) -> dict[str, Any]:
    parents = tuple(url_sample_id(url(n), caption(n)) for n in numbers)
    sample_id = built_sample_id("interleaved_caption", "1", 0, parents)
    segments: list[Segment] = []
    turns: list[Turn] = []
    for index, number in enumerate(numbers):
        segments += [Segment(image=index), Segment(text=caption(number))]
        turns.append(Turn(role="user", start=2 * index, end=2 * index + 1))
        turns.append(Turn(role="assistant", start=2 * index + 1, end=2 * index + 2))
    sample = Sample(
        id=sample_id,
        kind="interleaved",
        segments=tuple(segments),
        turns=tuple(turns),
        parents=parents,
        builder="interleaved_caption",
        builder_version="1",
        source="tiny",
        licence="CC-BY-4.0",
    )
    members = {"json": sample.to_json()} | {f"{i}.jpg": picture(n) for i, n in enumerate(numbers)}
    placed = tar.add(sample_id, members)
    media = []
    for number, member in zip(numbers, placed[1:], strict=True):
        data = picture(number)
        with Image.open(io.BytesIO(data)) as image:
            media.append(
                {
                    "path": "samples/pairs/00000.tar",
                    "offset": member.offset,
                    "bytes": member.num_bytes,
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "width": image.width,
                    "height": image.height,
                    "time_s": None,
                }
            )
    return {
        "sample_id": sample_id,
        "decision": "kept",
        "shard": "00000",
        "key": sample_id,
        "position": tar.num_samples - 1,
        "kind": "interleaved",
        "builder": "interleaved_caption",
        "builder_version": "1",
        "seed": 0,
        "source": "tiny",
        "licence": "CC-BY-4.0",
        "parents": list(parents),
        "images": 3,
        **counter.counts(sample, media),
        "json_offset": placed[0].offset,
        "json_bytes": placed[0].num_bytes,
        "media": media,
    }


def make_plans(workspace: Path, run: str = "toy") -> list[Manifest]:
    """Two stages over the same samples: 2 epochs in steps of 2, then 1 epoch."""
    mixture = MixtureConfig(datasets=(DatasetConfig(name="pairs"),), max_epochs=4)
    configs = {
        "pretrain": PlanConfig(mixture=mixture, global_batch_size=2, epochs=2, max_tokens=512, seed=1),
        "sft": PlanConfig(mixture=mixture, global_batch_size=2, steps=2, max_tokens=512, seed=2),
    }
    return [make_plan(config, workspace, run_name=run, stage=stage) for stage, config in configs.items()]


def make_run(workspace: Path, plan: Manifest, parent: Manifest | None, save_steps: int) -> Manifest:
    """The folder that training leaves: checkpoints (the last one still on disk), proof, scores, manifest."""
    folder = workspace / "runs" / plan.name
    steps = Plan.open(workspace / "plans" / plan.name).num_steps
    history = [
        {"step": step, "weights": hashlib.sha256(f"{plan.name}{step}".encode()).hexdigest(), "proof": ""}
        for step in range(save_steps, steps + 1, save_steps)
    ]
    for saved in history:
        make_checkpoint(folder, plan, saved["step"], [entry for entry in history if entry["step"] <= saved["step"]])
    counts = Counts(seen=steps * 2, kept=steps * 2)
    (folder / "proof.json").write_bytes(canonical_json({"steps": steps, "proof": "", "checkpoints": history}))
    metrics = [
        {
            "step": n,
            "loss": 4.0 / n,
            "grad_norm": 1.0,
            "learning_rate": {"gate": 1e-3},
            "seconds": 36.0,
            "phase_seconds": {"load": 1.0, "forward": 12.0, "backward": 20.0, "exchange": 1.0, "optimizer": 2.0},
        }
        for n in range(1, steps + 1)
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in metrics))
    for blind, score in ((False, 0.75), (True, 0.25)):
        make_result(folder / "evals" / "end" / f"scenes-single{'-blind' if blind else ''}-0123", score, blind=blind)
    return write_manifest(
        folder,
        kind="run",
        name=plan.name,
        counts=counts,
        recipe={"seed": 0, "stage": {"name": folder.name}},
        parents=[plan, *([parent] if parent else [])],
        stats={"steps": steps, "trained_tokens": 100, "images": 20, "loss": 4.0 / steps, "weights": "0" * 64},
        volatile=["metrics.jsonl"],
        exclude=["checkpoints/*", "evals/*"],
    )


def make_checkpoint(folder: Path, plan: Manifest, step: int, history: list[dict[str, Any]]) -> None:
    checkpoint = folder / "checkpoints" / f"step-{step:06d}"
    (checkpoint / "model").mkdir(parents=True)
    (checkpoint / "model" / "model.safetensors").write_bytes(f"weights of {plan.name} after {step}".encode())
    proof = Plan.open(folder.parents[2] / "plans" / plan.name).proof(step)
    state = {"step": step, "samples": step * 2, "proof": proof, "history": history}
    (checkpoint / "trainer.json").write_bytes(canonical_json(state))
    name = f"{plan.name}/step-{step:06d}"
    counts = Counts(seen=step * 2, kept=step * 2)
    write_manifest(checkpoint, kind="checkpoint", name=name, counts=counts, parents=[plan], stats={"step": step})


def make_result(folder: Path, score: float, *, blind: bool) -> None:
    folder.mkdir(parents=True)
    summary = {
        "task": "scenes-single",
        "primary": "accuracy",
        "figures": {"accuracy": score},
        "num_questions": 40,
        "interval_95": {"low": score - 0.1, "high": score + 0.1},
    }
    (folder / "summary.json").write_bytes(canonical_json(summary))
    recipe = {"title": "scenes-single", "blind": blind}
    write_manifest(folder, kind="eval", name=folder.name, counts=Counts(seen=40, kept=40), recipe=recipe)


def fill(workspace: Path) -> None:
    """The whole chain, from a source to a scored run of two stages."""
    shards = make_shards(workspace, make_source(workspace))
    make_samples(workspace, shards, make_tokenizer(workspace, shards))
    first_plan, second_plan = make_plans(workspace)
    make_run(workspace, second_plan, make_run(workspace, first_plan, None, save_steps=2), save_steps=1)


DATACARDS = Path(__file__).parents[2] / "datacards"


def make_card(workspace: Path, datacards: Path) -> Path:
    """Render the card of the workspace; returns its folder."""
    (datacards / "demo").mkdir(parents=True, exist_ok=True)
    shutil.copy(DATACARDS / "demo" / "facts.yaml", datacards / "demo" / "facts.yaml")
    shutil.copy(DATACARDS / "demo" / "model.yaml", datacards / "demo" / "model.yaml")
    card(CardConfig(name="demo", shards=("tiny",), samples=("pairs",)), workspace, datacards)
    return datacards / "demo" / "1.0.0"


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `workspace` and `datacards`, made once; tests get copies."""
    folder = tmp_path_factory.mktemp("golden")
    fill(folder / "workspace")
    make_card(folder / "workspace", folder / "datacards")
    return folder


@pytest.fixture
def workspace(golden: Path, tmp_path: Path) -> Path:
    """A private copy, free to be damaged."""
    return Path(shutil.copytree(golden / "workspace", tmp_path / "workspace"))


@pytest.fixture
def datacards(golden: Path, tmp_path: Path) -> Path:
    """A private copy of the rendered card, with its facts."""
    return Path(shutil.copytree(golden / "datacards", tmp_path / "datacards"))
