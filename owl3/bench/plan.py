"""How long planning takes at the size of the paper's first stage: 41 million samples of 8 datasets, drawn indexes.

Also: how large the plan is per sample, and how long a loader takes to its first batch at step 10, 10 thousand and
10 million of a very long plan.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from owl3.data.plan import PlanConfig, make_plan
from owl3.manifest import MANIFEST_NAME, Counts, FileEntry, Manifest, now
from owl3.storage import write_atomic

STAGE_1 = {
    "datacomp-1b": 35.22,
    "laion-en": 26.07,
    "coyo-700m": 14.47,
    "coyo-700m-ocr": 9.60,
    "laion-zh": 7.73,
    "wukong": 5.64,
    "cc12m": 0.81,
    "others": 0.46,
}
"""Percent of samples per dataset [mPLUG-Owl3 paper, table 1]."""

_SHARD_SAMPLES = 10_000  # what img2dataset writes by default
_SAMPLE_TAR_BYTES = 2048


def run(out_dir: Path, *, samples: int = 41_000_000) -> dict[str, Any]:
    """Write drawn indexes and plan them in a process of its own; return seconds, memory and bytes per sample."""
    workspace = out_dir / "plan-bench"
    began = time.perf_counter()
    for number, (name, percent) in enumerate(STAGE_1.items()):
        _write_indexes(workspace, name, int(samples * percent / 100), seed=number)
    written = time.perf_counter() - began
    steps = int(samples * 0.999) // 2048
    command = [sys.executable, "-m", "owl3.bench.plan", str(workspace), str(steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {"samples": samples, "writing_indexes_s": round(written, 1), **measured}


def config(steps: int) -> PlanConfig:
    """The paper's first stage: batches of 2,048 captions, rows of 768 tokens."""
    datasets = [{"name": name, "weight": percent} for name, percent in STAGE_1.items()]
    return PlanConfig.model_validate(
        {
            "mixture": {"datasets": datasets},
            "global_batch_size": 2048,  # [mPLUG-Owl3 paper, table 2]
            "steps": steps,
            "max_tokens": 768,  # [mPLUG-Owl3 paper, table 2]
            "max_tiles": 64,
            "prompt_style": "plain",
        }
    )


def _write_indexes(workspace: Path, name: str, count: int, seed: int) -> None:
    folder = workspace / "samples" / name
    if (folder / MANIFEST_NAME).is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    files = []
    for shard in range(-(-count // _SHARD_SAMPLES)):
        size = min(_SHARD_SAMPLES, count - shard * _SHARD_SAMPLES)
        path = folder / f"{shard:05d}.parquet"
        pq.write_table(_index(rng, size), path, compression="zstd")
        tar = path.with_suffix(".tar")
        with tar.open("wb") as handle:
            handle.truncate(size * _SAMPLE_TAR_BYTES)  # a hole: planning reads its size and nothing else
        files.append(FileEntry(path=tar.name, bytes=size * _SAMPLE_TAR_BYTES, sha256="0" * 64))
    manifest = Manifest(
        kind="samples",
        name=name,
        counts=Counts(seen=count, kept=count),
        files=tuple(files),
        stats={"tokenizer_digest": "0" * 64, "release": "241101"},
        started=now(),
    )
    manifest = manifest.model_copy(update={"digest": manifest.compute_digest()})
    write_atomic(folder / MANIFEST_NAME, manifest.model_dump_json().encode())


def _index(rng: np.random.Generator, size: int) -> pa.Table:
    """Caption costs: log-normal with a median of 30 tokens and a long tail, as web captions have."""
    ids = rng.bytes(16 * size).hex()
    tokens = np.clip(rng.lognormal(3.4, 0.5, size), 10, 300).astype(np.int32)
    ones = np.ones(size, dtype=np.int32)
    return pa.table(
        {
            "sample_id": [ids[i * 32 : i * 32 + 32] for i in range(size)],
            "decision": pa.array(["kept"] * size).dictionary_encode().cast(pa.string()),
            "position": np.arange(size),
            "text_tokens": tokens + 18,
            "trained_tokens": tokens - 5,
            "plain_tokens": tokens,
            "plain_trained_tokens": tokens - 5,
            "images": ones,
            "json_offset": np.arange(size) * _SAMPLE_TAR_BYTES + 512,
        }
    )


def measure(workspace: Path, steps: int) -> dict[str, Any]:
    """Plan once and say what it took."""
    began = time.perf_counter(), time.process_time()
    manifest = make_plan(config(steps), workspace, run_name=f"bench-{os.getpid()}", stage="pretrain")
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    planned_bytes = sum(entry.bytes for entry in manifest.files)
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "bytes_per_sample": round(planned_bytes / (steps * 2048), 2),
        "packing_efficiency": manifest.stats["packing_efficiency"],
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201 - its parent reads it
