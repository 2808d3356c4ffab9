"""Loading photos: ours against webdataset, Megatron-Energon, MosaicML Streaming and the limit, on the same photos.

Everybody delivers the same thing: batches of 16 pictures decoded and resized to 384 x 384 by the same function (bytes,
horizontal pass first: the released processor's pixels). The limit, `memory`, only decodes and resizes bytes that lie in
memory; `ours` also finds, reads, parses, tokenises, checks and packs, in the plan's shuffled order. Contestants take
turns, each run in a process of its own; figures are medians. CPU seconds are of the loader with its workers: the figure
to trust on a machine that is not idle.

Energon and Streaming take part when `owl3 tools install peers` has been run.
"""

import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from owl3 import lifeline, tools
from owl3.bench.loader_access import measure_access
from owl3.bench.loader_contest import BATCH, SIDE_PX
from owl3.bench.loader_report import write_report
from owl3.data.energon import export_energon
from owl3.data.plan import make_plan
from owl3.errors import InputError
from owl3.manifest import MANIFEST_NAME, Counts, write_manifest
from owl3.planfile import Plan
from owl3.samples import Sample, Segment, Turn, short_hash
from owl3.shards import SAMPLE_INDEX, ShardWriter, write_index
from owl3.template import render, tokenize
from owl3.tokens import TextTokenizer, save_tokenizer, train_tiny

_CAPTIONS = ("a photo of a street with cars", "two people at a table", "a dog that runs over grass", "a red bus")
_SHARD_SAMPLES = 50  # several per worker, so that peers can share them out
_OURS = ("memory", "ours", "webdataset", "memory_opencv", "ours_opencv")
_PEERS = ("energon", "streaming")
_RESUMED_STEPS = (10, 10_000, 10_000_000)


def run(
    out: Path,
    *,
    photos: str | None = None,
    samples: int = 768,
    workers: Sequence[int] = (1, 2),
    rounds: int = 3,
    max_seconds: float = 80,
    peers: bool | None = None,
    long_steps: int = 10_000_100,
    access: bool = True,
) -> dict[str, Any]:
    """Measure throughput at each number of workers, the time to the first batch at far steps, and random access.

    Args:
        photos: A folder with JPEGs; they are taken in turn until there are `samples`. Default: drawn pictures.
        max_seconds: No further round begins after so long.
        peers: Let Energon and Streaming take part. Default: when they are installed.
        long_steps: Steps of the plan that resuming is measured on; 0 leaves it out.
        access: Compare shuffled with sequential reading, from disk and from an S3 server on 127.0.0.1.
    """
    workspace = out / "loader-bench"
    shutil.rmtree(workspace, ignore_errors=True)
    originals = _photos(Path(photos)) if photos else _drawn_photos()
    plan = _prepare(workspace, originals, samples)
    names = _OURS + (_PEERS if (tools.is_installed("peers") if peers is None else peers) else ())
    results: dict[int, dict[str, list[dict[str, float]]]] = {count: {} for count in workers}
    done, until = 0, time.monotonic() + max_seconds
    while done < rounds and (not done or time.monotonic() < until):
        for name in names:
            for count, measured in zip(workers, _contest(name, workspace, *workers), strict=True):
                results[count].setdefault(name, []).append(measured)
        done += 1
    report: dict[str, Any] = {
        "photos": {"distinct": len(originals), "samples": samples, "mean_kb": round(_mean_kb(originals), 1)},
        "rounds": done,
        **{f"workers_{count}": _table(runs) for count, runs in results.items()},
        "opencv_pixels": opencv_difference(originals[:200]),
    }
    if long_steps:
        report["resume"] = _resume(workspace, long_steps)
    if access:
        report["access"] = measure_access(workspace, plan)
    report["plan_digest"] = plan.digest
    shutil.rmtree(workspace)
    write_report(out / "loader.md", report)
    return report


def opencv_difference(originals: Sequence[bytes]) -> dict[str, float]:
    """How far the fast decoder's pixels are from the exact ones, in steps of 255."""
    from owl3.data.encode import open_fast, resize_fast, resize_pillow
    from owl3.media import open_image

    means, maxima, over = [], [], []
    for data in originals:
        exact = resize_pillow(open_image(data), SIDE_PX, SIDE_PX).astype(np.int16)
        difference = np.abs(resize_fast(open_fast(data), SIDE_PX, SIDE_PX) - exact)
        means.append(float(difference.mean()))
        maxima.append(int(difference.max()))
        over.append(float((difference > 8).mean()))
    return {
        "mean": round(statistics.mean(means), 3),
        "max": max(maxima),
        "percent_over_8": round(100 * statistics.mean(over), 3),
    }


def _contest(name: str, workspace: Path, *numbers: int) -> list[Any]:
    command = [sys.executable, "-m", "owl3.bench.loader_contest", name, str(workspace), *map(str, numbers)]
    # MosaicML's locks have the same names for all users of a machine: a folder of their own keeps them apart, and goes.
    with tempfile.TemporaryDirectory(prefix="owl3-bench-") as folder:
        environment = {**os.environ, "TMPDIR": folder}
        done = subprocess.run(lifeline.wrap(command), capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise InputError(f"the contestant {name!r} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    measured: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def _table(runs: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Medians, and the share of the limit that each reaches."""
    table: dict[str, dict[str, float]] = {}
    for name, measured in runs.items():
        table[name] = {
            "samples_per_s": round(statistics.median(m["samples"] / m["seconds"] for m in measured), 1),
            "samples_per_cpu_s": round(statistics.median(m["samples"] / m["cpu_seconds"] for m in measured), 1),
        }
    limit = table["memory"]
    for row in table.values():
        row["of_limit"] = round(row["samples_per_s"] / limit["samples_per_s"], 3)
        row["of_limit_cpu"] = round(row["samples_per_cpu_s"] / limit["samples_per_cpu_s"], 3)
    return table


def _resume(workspace: Path, long_steps: int) -> dict[str, float]:
    """Seconds of work, imports aside, from a step number to its first batch."""
    tokenizer = TextTokenizer.load(workspace / "tokenizer")
    if not (workspace / "plans" / "bench" / "long" / MANIFEST_NAME).is_file():
        from owl3.data.plan import PlanConfig

        mixture = {"datasets": [{"name": "photos"}], "max_epochs": long_steps}
        config = {"mixture": mixture, "global_batch_size": 1, "steps": long_steps, "max_tokens": 512, "pack": False}
        make_plan(PlanConfig.model_validate(config), workspace, run_name="bench", stage="long")
    assert tokenizer.digest == Plan.open(workspace / "plans" / "bench" / "long").header.tokenizer_digest
    steps = [step for step in _RESUMED_STEPS if step < long_steps]
    return {f"step_{step}_s": _contest("resume", workspace, step)[0] for step in steps}


def _prepare(workspace: Path, originals: Sequence[bytes], samples: int) -> Plan:
    """Write the same photos as our shards (also webdataset's), Energon's side files, and Streaming's own format."""
    from owl3.data.plan import PlanConfig

    folder = workspace / "samples" / "photos"
    tokenizer = train_tiny(_CAPTIONS, 400)
    if not (folder / MANIFEST_NAME).is_file():
        save_tokenizer(tokenizer, workspace / "tokenizer")
        for shard in range(-(-samples // _SHARD_SAMPLES)):
            numbers = range(shard * _SHARD_SAMPLES, min((shard + 1) * _SHARD_SAMPLES, samples))
            _write_shard(folder / f"{shard:05d}.tar", numbers, originals, tokenizer)
        stats = {"tokenizer_digest": tokenizer.digest, "release": "241101", "tile_px": SIDE_PX}
        counts = Counts(seen=samples, kept=samples)
        write_manifest(folder, kind="samples", name="photos", counts=counts, stats=stats)
    config = {"mixture": {"datasets": [{"name": "photos"}]}, "global_batch_size": BATCH, "epochs": 1}
    more = {"max_tokens": 512, "max_tiles": BATCH}
    grouped = {"shuffle": "groups", "shard_group": 2}
    make_plan(PlanConfig.model_validate(config | more), workspace, run_name="bench", stage="short")
    make_plan(PlanConfig.model_validate(config | more | grouped), workspace, run_name="bench", stage="grouped")
    plan = Plan.open(workspace / "plans" / "bench" / "short")
    export_energon(plan, workspace, workspace / "energon")
    return plan


def _write_shard(path: Path, numbers: range, originals: Sequence[bytes], tokenizer: TextTokenizer) -> None:
    rows = []
    with ShardWriter(path) as tar:
        for position, number in enumerate(numbers):
            sample = _sample(number)
            json_member, photo = tar.add(
                sample.id, {"json": sample.to_json(), "0.jpg": originals[number % len(originals)]}
            )
            text = tokenize(render(sample.segments, sample.turns, release="241101"), tokenizer)
            medium = {"path": f"samples/photos/{path.name}", "offset": photo.offset, "bytes": photo.num_bytes}
            rows.append(
                {
                    "sample_id": sample.id,
                    "key": sample.id,
                    "decision": "kept",
                    "shard": path.stem,
                    "position": position,
                    "kind": sample.kind,
                    "text_tokens": len(text.input_ids),
                    "trained_tokens": sum(text.trained),
                    "plain_tokens": 1,
                    "plain_trained_tokens": 1,
                    "images": 1,
                    "tiles": [5],
                    "json_offset": json_member.offset,
                    "json_bytes": json_member.num_bytes,
                    "media": [medium],
                }
            )
    write_index(path.with_suffix(".parquet"), rows, SAMPLE_INDEX)


def _sample(number: int) -> Sample:
    return Sample(
        id=short_hash("bench", str(number)),
        kind="image_text",
        segments=(Segment(image=0), Segment(text=_CAPTIONS[number % len(_CAPTIONS)])),
        turns=(Turn(role="user", start=0, end=1), Turn(role="assistant", start=1, end=2)),
        source="bench",
        licence="CC0-1.0",
    )


def _photos(folder: Path) -> list[bytes]:
    found = [path.read_bytes() for path in sorted(folder.rglob("*.jpg"))]
    if not found:
        raise InputError(f"{folder}: holds no .jpg file")
    return found


def _drawn_photos() -> list[bytes]:
    """Pictures with a photo's size and about a photo's detail, where no photos are given."""
    return list(_draw(np.random.default_rng(0), 64))


def _draw(rng: np.random.Generator, count: int) -> Iterator[bytes]:
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 255, (60, 80, 3), dtype=np.uint8)).resize((640, 480))
        noise = rng.integers(-12, 13, (480, 640, 3))
        pixels = np.clip(np.asarray(coarse, dtype=np.int16) + noise, 0, 255).astype(np.uint8)
        handle = io.BytesIO()
        Image.fromarray(pixels).save(handle, "JPEG", quality=85)
        yield handle.getvalue()


def _mean_kb(originals: Sequence[bytes]) -> float:
    return statistics.mean(map(len, originals)) / 1000
