"""What curation costs, against img2dataset alone and against the naive way of looking at pictures.

    fetch       a local server of web-sized JPEGs: img2dataset alone and inside `owl3 curate` with every guard on
                (`curate_contest.py` says how); images per second, and CPU milliseconds per stored image: all of them,
                and without those that a run of a few pictures takes (programs that start and end)
    stalling    the same with one host in ten that accepts and never answers
    inspect     header, hashes, blur and entropy from one reduced decode, against one full decode each (the naive
                chain) and against decoding alone; images per CPU second
    dedup       near duplicates among 0.1, 1 and 10 million hashes: CPU seconds and peak memory
    rows        a URL table of a million rows, prepared and decided on: peak memory

Everything that is compared runs in turns, so that a busy machine slows both sides; ratios are medians over the turns.
"""

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import imagehash
import numpy as np
from PIL import ImageFilter, ImageStat

from owl3.bench.curate_contest import KINDS, Contest, adopt_orphans
from owl3.bench.curate_world import Server, write_pictures
from owl3.bench.tables import Figure, write_figures
from owl3.curate.config import CurateConfig
from owl3.curate.dedup import group_near
from owl3.curate.run import curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.errors import ConfigError
from owl3.media import open_image, probe_image

PARTS = ("inspect", "fetch", "stalling", "dedup", "rows")


def run(
    out_dir: Path,
    *,
    images: int = 5000,
    image_size: int = 384,
    photos: str | None = None,
    rounds: int = 2,
    hashes: int = 10_000_000,
    rows: int = 1_000_000,
    parts: str = " ".join(PARTS),
) -> dict[str, Any]:
    """Measure; return rates, ratios and peaks, and write them to `curate.json` and `curate.md`.

    Args:
        images: Pictures on the local server.
        image_size: Both sides resize to it, by `keep_ratio`; img2dataset's default scales smaller pictures up to it.
        photos: A folder of real JPEGs to serve; without it they are made.
        hashes: Largest set for the near-duplicate search.
        rows: Rows of the URL table whose memory is measured.
        parts: Which of the measurements to make.
    """
    wanted = parts.split()
    unknown = [part for part in wanted if part not in PARTS]
    if unknown:
        raise ConfigError(f"parts {parts!r}: no part {unknown[0]!r}; there are: {' '.join(PARTS)}")
    adopt_orphans()
    world = out_dir / "curate-bench"
    shutil.rmtree(world, ignore_errors=True)
    result: dict[str, Any] = {"images": images, "image_size": image_size}
    if {"inspect", "fetch", "stalling"} & {*wanted}:
        files = write_pictures(world / "www", images, Path(photos) if photos else None)
        result["corpus"] = "photos" if photos else "made pictures"
        result["mean_bytes"] = round(sum(file.stat().st_size for file in files) / len(files))
    if "inspect" in wanted:
        result["inspect"] = _inspect(files[:400], max(3, rounds))
    for part in ("fetch", "stalling"):
        if part in wanted:
            with Server(world / "www", stalls=part == "stalling") as port:
                contest = Contest(world, port, images, image_size, stalls=part == "stalling")
                result[part] = contest.run(rounds) if part == "fetch" else contest.run(1, without_start=False)
    if "dedup" in wanted:
        result["dedup"] = {str(n): _in_child(_dedup, n) for n in (hashes // 100, hashes // 10, hashes)}
    if "rows" in wanted:
        result["rows"] = _in_child(_many_rows, rows)
    shutil.rmtree(world, ignore_errors=True)
    (out_dir / "curate.json").write_text(json.dumps(result, indent=1) + "\n")
    write_figures(out_dir / "curate.md", "Curation", figures(result), command="owl3 bench curate")
    return result


def figures(result: dict[str, Any]) -> list[Figure]:
    """What was measured, beside what was asked for."""
    found = []
    if "fetch" in result:
        fetch = result["fetch"]
        corpus = f"{result['corpus']} of {result['mean_bytes'] / 1000:.0f} kB to {result['image_size']} px"
        for kind, name in (("owl3", ""), ("owl3_alone", ", without its engine (distributor: none)")):
            found.append(Figure(f"images/s over img2dataset's, {corpus}{name}", fetch[kind]["speed_ratio"], 0.9))
            what = f"CPU per stored image over img2dataset's default, {corpus}{name}"
            found.append(Figure(what, fetch[kind]["cpu_ratio"], 0.5, "lower"))
            found.append(Figure("the same without start and end of the programs", fetch[kind]["steady_cpu_ratio"]))
        what = "the pictures' own part of it: a plain GET, one look, resizing what is too big, hashes, a tar"
        found.append(Figure(what, fetch["floor"]["steady_cpu_ratio"]))
        for kind in KINDS:
            found.append(Figure(f"CPU per stored image, {kind}", fetch[kind]["cpu_ms_per_image"], unit="ms"))
            found.append(Figure("the same without start and end", fetch[kind]["steady_cpu_ms_per_image"], unit="ms"))
        found += [Figure(f"images/s, {kind}", fetch[kind]["images_per_s"]) for kind in KINDS[:-1]]
    if "stalling" in result:
        for kind, name in (("owl3", ""), ("owl3_alone", ", without its engine")):
            what = f"images/s over img2dataset's, one stalling host in ten{name}"
            found.append(Figure(what, result["stalling"][kind]["speed_ratio"], 3))
    if "inspect" in result:
        inspect = result["inspect"]
        found += [
            Figure("one pass over the naive chain", inspect["against_naive"], 3),
            Figure("one pass over decoding alone", inspect["against_decode"], 0.6),
        ]
    for count, taken in result.get("dedup", {}).items():
        found.append(Figure(f"near duplicates among {int(count):,} hashes, CPU", taken["cpu_s"], unit="s"))
        found.append(
            Figure(f"near duplicates among {int(count):,} hashes, peak", taken["peak_mb"], 4000, "lower", "MB")
        )
    if "rows" in result:
        rows = result["rows"]
        found += [
            Figure(f"{part} a table of {rows['rows']:,} rows, peak", rows[f"{part}_peak_mb"], 1500, "lower", "MB")
            for part in ("prepare", "curate")
        ]
    return found


def _inspect(files: list[Path], rounds: int) -> dict[str, Any]:
    """One pass over a picture, against the naive chain and against decoding alone."""
    data = [path.read_bytes() for path in files]
    ways: dict[str, Callable[[bytes], object]] = {
        "one_pass": lambda body: (hashlib.sha256(body).hexdigest(), probe_image(body)),
        "naive_chain": _naive_chain,
        "decode_only": open_image,
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, look in ways.items():
            started = time.process_time()
            for body in data:
                look(body)
            times[way].append((time.process_time() - started) / len(data))
    rates = {way: round(1 / median(taken), 1) for way, taken in times.items()}
    ratios = {
        "against_naive": round(rates["one_pass"] / rates["naive_chain"], 2),
        "against_decode": round(rates["one_pass"] / rates["decode_only"], 2),
    }
    return {"images_per_cpu_s": rates} | ratios


def _naive_chain(body: bytes) -> tuple[object, ...]:
    """What a script does that calls one library after the other: a decode for each."""
    digest = hashlib.sha256(body).hexdigest()
    size = open_image(body).size
    phash = imagehash.phash(open_image(body))
    blur = ImageStat.Stat(open_image(body).convert("L").filter(ImageFilter.FIND_EDGES)).var
    return digest, size, str(phash), blur, open_image(body).convert("L").entropy()


def _in_child(work: Callable[[int], dict[str, float]], size: int) -> dict[str, float]:
    """Run in a fresh process, for its peak memory."""
    code = f"import json; from owl3.bench.curate import {work.__name__} as w; print(json.dumps(w({size})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _peak_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000


def _dedup(count: int) -> dict[str, float]:
    """One row in ten is within three bits of another."""
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64 - 1, count, dtype=np.uint64)
    copies = count // 10
    sources = rng.integers(0, count - copies, copies)
    flips = np.uint64(1) << rng.integers(0, 64, (copies, 3)).astype(np.uint64)
    hashes[count - copies :] = hashes[sources] ^ np.bitwise_or.reduce(flips, axis=1)
    started = time.process_time()
    groups = group_near(hashes, 4)
    found = float((groups[count - copies :] <= sources).mean())
    return {"cpu_s": round(time.process_time() - started, 2), "found": found, "peak_mb": _peak_mb()}


def _many_rows(count: int) -> dict[str, float]:
    """Prepare a table and decide on its rows; none is fetched, for none has the licence asked for."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        workspace = Path(folder)
        with (workspace / "t.tsv").open("w") as handle:
            for number in range(count):
                handle.write(f"http://h{number % 5000}.example/{number}.jpg\ta picture of thing number {number}\n")
        source = {"name": "b", "files": ["t.tsv"], "header": False, "columns": {"url": "0", "caption": "1"}}
        prepare(SourceConfig.model_validate(source), workspace)
        prepared_mb = _peak_mb()
        config = {"name": "b", "source": "b", "fetch": {"contact": "x"}, "rows": {"licences": ["none"]}}
        curate(CurateConfig.model_validate(config), workspace)
        return {"rows": count, "prepare_peak_mb": prepared_mb, "curate_peak_mb": _peak_mb()}
