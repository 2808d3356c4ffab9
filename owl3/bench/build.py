"""How fast samples are built without re-encoding, against copying the same files, and in how much memory.

    copy            one tar after another, read, written, hashed and flushed to disk: what this disk can do
    bytes           `caption` samples with their media copied, in one process and in as many as there are cores
    references      the same, pointing at the parents' tars instead
    memory          peak of a build of N samples and of 10 N, each in a process of its own
    drawing         finding the pictures of 10,000 samples among ten million parents

Copying and building alternate, so that a busy machine slows both; ratios are medians over rounds. With several
processes the time they take to start is part of the figure.
"""

import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from owl3 import lifeline
from owl3.bench.tables import Figure, write_figures
from owl3.build.config import BUILD_CONFIG, TokenizerConfig
from owl3.build.draw import Shuffled, even_sizes, plan_runs
from owl3.build.draw import draws_of as all_draws
from owl3.build.run import build
from owl3.build.tokenizer import make_tokenizer
from owl3.manifest import Counts, write_manifest
from owl3.samples import url_sample_id
from owl3.shards import ShardWriter
from owl3.storage import copy_exact

_PER_SHARD = 1000
_DRAW_PARENTS = 10_000_000
_DRAW_SAMPLES = 10_000


def run(
    out_dir: Path, *, pairs: int = 8000, side_px: int = 310, rounds: int = 3, max_seconds: float = 120
) -> dict[str, Any]:
    """Measure; return megabytes per second, ratios and peak memory.

    Args:
        pairs: Curated pairs to build from.
        side_px: Side of their pictures; 310 px of noise is a JPEG of 93 kB, the mean of 385 photos of COCO and LAION.
        max_seconds: No further round begins after so long.
    """
    workspace = out_dir / "build-bench"
    shutil.rmtree(workspace, ignore_errors=True)
    megabytes = _write_pairs(workspace, "pairs", pairs, side_px) / 1e6
    make_tokenizer(TokenizerConfig(name="tiny", shards=("pairs",), vocab_size=400), workspace)
    cores = len(os.sched_getaffinity(0))
    builds = {"bytes_1": 1, f"bytes_{cores}": cores, "references_1": 1}
    took = _rounds(workspace, builds, rounds, max_seconds)
    kinds = ["copy", *builds]
    result: dict[str, Any] = {
        "pairs": pairs,
        "megabytes": round(megabytes, 1),
        "cores": cores,
        "rounds": len(took),
        **{kind: _speed([one[kind][0] for one in took], megabytes, pairs) for kind in kinds},
        "bytes_over_copy": {
            str(processes): round(median(one["copy"][0] / one[kind][0] for one in took), 3)
            for kind, processes in builds.items()
            if kind.startswith("bytes")
        },
        # On a busy machine wall time says how busy it is; CPU time of one process says what the work costs.
        "copy_cpu_over_bytes_cpu": round(median(one["copy"][1] / one["bytes_1"][1] for one in took), 3),
        "memory": _memory(workspace, pairs // 4),
        "drawing": _drawing(),
    }
    shutil.rmtree(workspace)
    write_figures(out_dir / "build.md", "Building samples", _figures(result), command="owl3 bench build")
    return result


def _figures(result: dict[str, Any]) -> list[Figure]:
    small, large = result["memory"].values()
    most = str(result["cores"])
    return [
        Figure(f"speed of building over that of copying, {most} processes", result["bytes_over_copy"][most], 0.5),
        Figure("speed of building over that of copying, 1 process", result["bytes_over_copy"]["1"]),
        Figure("CPU time of copying over that of building, 1 process", result["copy_cpu_over_bytes_cpu"]),
        Figure("copying", result["copy"]["megabytes_per_s"], unit="MB/s"),
        Figure(f"building, {most} processes", result[f"bytes_{most}"]["megabytes_per_s"], unit="MB/s"),
        Figure(f"building, {most} processes", result[f"bytes_{most}"]["samples_per_s"], unit="samples/s"),
        Figure("building with references, 1 process", result["references_1"]["samples_per_s"], unit="samples/s"),
        Figure("peak memory of ten times the samples over that of one", round(large / small, 3), 1.1, "lower"),
        Figure("peak memory", large, unit="MB"),
        Figure("drawing 10,000 samples among 10 M parents, CPU", result["drawing"]["cpu_seconds"], unit="s"),
        Figure("memory grown while drawing", result["drawing"]["memory_grown_mb"], unit="MB"),
    ]


def _rounds(
    workspace: Path, builds: dict[str, int], rounds: int, max_seconds: float
) -> list[dict[str, tuple[float, float]]]:
    """Wall and CPU seconds (of this process) of copying and of each kind of build, round by round."""
    taken: list[dict[str, tuple[float, float]]] = []
    until = time.monotonic() + max_seconds
    while len(taken) < rounds and (not taken or time.monotonic() < until):
        one: dict[str, tuple[float, float]] = {}
        for kind in ("copy", *builds):
            began, cpu_before = time.perf_counter(), time.process_time()
            if kind == "copy":
                _copy(workspace)
            else:
                _build(workspace, "pairs", kind.partition("_")[0], builds[kind])
            one[kind] = time.perf_counter() - began, time.process_time() - cpu_before
            shutil.rmtree(workspace / "copied", ignore_errors=True)
            shutil.rmtree(workspace / "samples", ignore_errors=True)
        taken.append(one)
    return taken


def _speed(seconds: list[float], megabytes: float, pairs: int) -> dict[str, float]:
    taken = median(seconds)
    return {
        "seconds": round(taken, 2),
        "megabytes_per_s": round(megabytes / taken, 1),
        "samples_per_s": round(pairs / taken),
    }


def _write_pairs(workspace: Path, name: str, pairs: int, side_px: int) -> int:
    """A shard set of noise pictures, each with bytes of its own; return its bytes."""
    folder = workspace / "shards" / name
    folder.mkdir(parents=True)
    pictures = []
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(0, 255, (side_px, side_px, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
        pictures.append(buffer.getvalue())
    for first in range(0, pairs, _PER_SHARD):
        rows = []
        shard = f"{first // _PER_SHARD:05d}"
        with ShardWriter(folder / f"{shard}.tar") as tar:
            for number in range(first, min(first + _PER_SHARD, pairs)):
                data = pictures[number % len(pictures)] + number.to_bytes(8, "big")  # bytes after the picture's end
                url, caption = f"http://bench.owl3.test/{number}.jpg", f"a picture of noise, number {number}"
                key = url_sample_id(url, caption)
                place = tar.add(key, {"jpg": data, "txt": caption.encode()})[0]
                rows.append(
                    {
                        "sample_id": key,
                        "url": url,
                        "caption": caption,
                        "decision": "kept",
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "width": side_px,
                        "height": side_px,
                        "media_offset": place.offset,
                        "media_bytes": place.num_bytes,
                    }
                )
        pq.write_table(pa.Table.from_pylist(rows), folder / f"{shard}.parquet")
    write_manifest(folder, kind="shards", name=name, counts=Counts(seen=pairs, kept=pairs))
    return sum(path.stat().st_size for path in folder.glob("*.tar"))


def _copy(workspace: Path) -> None:
    """The peer: copy and flush every tar, and hash it as a manifest does."""
    for path in sorted((workspace / "shards" / "pairs").glob("*.tar")):
        copy_exact(path, workspace / "copied" / path.name)


def _build(workspace: Path, shards: str, store: str, processes: int) -> None:
    fields = {"name": "built", "builder": "caption", "shards": [shards], "tokenizer": "tiny", "store": store}
    build(BUILD_CONFIG.validate_python(fields), workspace, processes=processes)


def _memory(workspace: Path, pairs: int) -> dict[str, int]:
    """Peak megabytes of a build of so many small pairs, and of ten times as many."""
    sizes = {"1x": pairs, "10x": 10 * pairs}
    for name, count in sizes.items():
        _write_pairs(workspace, name, count, 32)
    return {str(count): _peak_of_build(workspace, name) for name, count in sizes.items()}


def _peak_of_build(workspace: Path, shards: str) -> int:
    command = [sys.executable, "-m", "owl3.bench.build", str(workspace), shards]
    done = subprocess.run(lifeline.wrap(command), stdout=subprocess.PIPE, text=True, check=True)
    shutil.rmtree(workspace / "samples")
    return int(json.loads(done.stdout)["peak_mb"])


def _drawing() -> dict[str, float]:
    """Find who stands in 10,000 samples of 3 to 8 pictures, somewhere in the middle of ten million parents."""
    order = Shuffled(_DRAW_PARENTS, "bench", 0)

    def sizes(ordinals: Any) -> Any:
        return even_sizes(3, 8, ordinals, "bench", 0)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    runs = plan_runs(sizes, order.size, 1, after=None, count=_DRAW_SAMPLES, per_shard=_PER_SHARD)
    drawn = [rows for run_ in runs for _, _, rows in all_draws(run_, sizes, order, 1)]
    took = time.process_time() - began
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert len(drawn) == _DRAW_SAMPLES
    return {
        "parents": _DRAW_PARENTS,
        "samples": _DRAW_SAMPLES,
        "cpu_seconds": round(took, 3),
        "memory_grown_mb": round(grown / 1024, 1),
    }


def main(workspace: Path, shards: str) -> None:
    """Build once and print the peak memory of this process."""
    _build(workspace, shards, "bytes", processes=1)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps({"peak_mb": peak_mb}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
