"""How long planning takes at the size of the paper's first stage: 41 million samples of 8 datasets, drawn indexes.

Also: in how much memory, how large the plan is per sample, how full its rows are, and how evenly ranks share pictures.
Resuming in a very long plan is measured by `owl3 bench loader`.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from owl3 import lifeline
from owl3.bench.tables import Figure, write_figures
from owl3.data.balance import rank_balance
from owl3.data.plan import PlanConfig, make_plan
from owl3.manifest import MANIFEST_NAME, Counts, FileEntry, Manifest, now
from owl3.planfile import Plan
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
    sizes = {name: int(samples * percent / 100) for name, percent in STAGE_1.items()}
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=lifeline.end_with_parent) as pool:
        done = [pool.submit(_write_indexes, workspace, *entry, seed) for seed, entry in enumerate(sizes.items())]
        for future in done:
            future.result()
    written = time.perf_counter() - began
    steps = int(samples * 0.999) // 2048
    command = [sys.executable, "-m", "owl3.bench.plan", str(workspace), str(steps)]
    planned = subprocess.run(lifeline.wrap(command), stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, Any] = json.loads(planned.stdout.splitlines()[-1])
    result = {"samples": samples, "writing_indexes_s": round(written, 1), **measured}
    shutil.rmtree(workspace)
    title, asked = f"Planning {samples:,} samples", f"owl3 bench plan samples={samples}"
    write_figures(out_dir / "plan.md", title, _figures(result), command=asked)
    return result


def _figures(result: dict[str, Any]) -> list[Figure]:
    return [
        Figure("time", result["seconds"], 90, "lower", "s"),
        Figure("CPU time", result["cpu_seconds"], unit="s"),
        Figure("peak memory", result["peak_gb"], 4, "lower", "GB"),
        Figure("plan on disk per sample", result["bytes_per_sample"], 12, "lower", "bytes"),
        Figure("rows filled", result["packing_efficiency"], 0.95),
        Figure("padding unpacked batches of 16 would fill", result["padding_efficiency"]),
        *(
            Figure(f"steps whose {at['ranks']} ranks differ by at most 10 % in image tokens", at["within"], 1.0)
            for at in result["rank_balance"]
        ),
    ]


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
    digits = pa.py_buffer(rng.bytes(16 * size).hex().encode())
    starts = pa.py_buffer(np.arange(0, 32 * size + 1, 32, dtype=np.int32))
    tokens = np.clip(rng.lognormal(3.4, 0.5, size), 10, 300).astype(np.int32)
    ones = np.ones(size, dtype=np.int32)
    return pa.table(
        {
            "sample_id": pa.StringArray.from_buffers(size, starts, digits),
            "decision": pa.repeat("kept", size),
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
    plan = Plan.open(workspace / "plans" / manifest.name)
    planned_bytes = sum(entry.bytes for entry in manifest.files)
    return {
        "steps": steps,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "bytes_per_sample": round(planned_bytes / (steps * 2048), 2),
        "packing_efficiency": manifest.stats["packing_efficiency"],
        "padding_efficiency": plan.header.figures["padding_efficiency"],
        "rank_balance": [asdict(balance) for balance in rank_balance(plan)],
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), int(sys.argv[2]))))  # noqa: T201 - its parent reads it
