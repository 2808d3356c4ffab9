"""How fast samples are built without re-encoding, against copying the same files, and in how much memory.

    copy            one tar after another, read, written and flushed to disk: what this disk can do
    bytes           `caption` samples with their media copied, in one process and in as many as there are cores
    references      the same, pointing at the parents' tars instead
    memory          peak of a build of N samples and of 10 N, each in a process of its own
    drawing         finding the pictures of 10,000 samples among ten million parents

Copying and building alternate, so that a busy machine slows both.
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


def run(out_dir: Path, *, pairs: int = 4000, side_px: int = 256, rounds: int = 3) -> dict[str, Any]:
    """Measure; return megabytes per second, ratios and peak memory.

    Args:
        pairs: Curated pairs to build from.
        side_px: Side of their pictures; 256 px of noise is a JPEG of about 64 kB, less than a web photo.
    """
    workspace = out_dir / "build-bench"
    shutil.rmtree(workspace, ignore_errors=True)
    megabytes = _write_pairs(workspace, "pairs", pairs, side_px) / 1e6
    make_tokenizer(TokenizerConfig(name="tiny", shards=("pairs",), vocab_size=400), workspace)
    cores = len(os.sched_getaffinity(0))
    kinds = {"copy": 0, "bytes_1": 1, f"bytes_{cores}": cores, "references_1": 1}
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: list[float] = []
    for _ in range(rounds):
        for kind, processes in kinds.items():
            began, cpu_before = time.perf_counter(), time.process_time()
            if kind == "copy":
                _copy(workspace)
            else:
                _build(workspace, "pairs", kind.partition("_")[0], processes)
            seconds[kind].append(time.perf_counter() - began)
            if kind == "bytes_1":
                cpu.append(time.process_time() - cpu_before)
    took = {kind: median(found) for kind, found in seconds.items()}
    result: dict[str, Any] = {"pairs": pairs, "megabytes": round(megabytes, 1), "cores": cores}
    for kind, taken in took.items():
        result[kind] = {
            "seconds": round(taken, 2),
            "megabytes_per_s": round(megabytes / taken, 1),
            "samples_per_s": round(pairs / taken),
        }
    result["bytes_over_copy"] = {
        str(processes): round(took["copy"] / took[kind], 3) for kind, processes in kinds.items() if kind[:5] == "bytes"
    }
    # What one core without neighbours would do: on a busy machine wall time says how busy it is.
    result["bytes_1"]["cpu_seconds"] = round(median(cpu), 2)
    result["bytes_over_copy"]["1, by CPU time"] = round(took["copy"] / median(cpu), 3)
    result["memory"] = _memory(workspace, pairs)
    result["drawing"] = _drawing()
    shutil.rmtree(workspace)
    return result


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
    shutil.rmtree(workspace / "copied")


def _build(workspace: Path, shards: str, store: str, processes: int) -> None:
    fields = {"name": "built", "builder": "caption", "shards": [shards], "tokenizer": "tiny", "store": store}
    build(BUILD_CONFIG.validate_python(fields), workspace, processes=processes)
    shutil.rmtree(workspace / "samples" / "built")


def _memory(workspace: Path, pairs: int) -> dict[str, int]:
    """Peak megabytes of a build of a tenth of the pairs, and of all."""
    _write_pairs(workspace, "tenth", pairs // 10, 64)
    _write_pairs(workspace, "whole", pairs, 64)
    return {str(count): _peak_of_build(workspace, name) for name, count in (("tenth", pairs // 10), ("whole", pairs))}


def _peak_of_build(workspace: Path, shards: str) -> int:
    command = [sys.executable, "-m", "owl3.bench.build", str(workspace), shards]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
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
    _build(workspace, shards, "references", processes=1)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps({"peak_mb": peak_mb}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
