"""What curation costs, against img2dataset alone and against the naive way of looking at pictures.

    fetch       a local server of web-sized JPEGs: bare img2dataset (its defaults, and with our resize flags) and
                `owl3 curate` with every guard on; images per second, and CPU milliseconds per stored image: all of
                them, and without those that a run of a few pictures takes (programs that start and end)
    stalling    the same with one host in ten that accepts and never answers
    inspect     header, hashes, blur and entropy from one reduced decode, against one full decode each (the naive
                chain) and against decoding alone; images per CPU second
    dedup       near duplicates among 0.1, 1 and 10 million hashes: CPU seconds and peak memory
    rows        a URL table of a million rows, prepared and decided on: peak memory

Everything that is compared runs in turns, so that a busy machine slows both sides; ratios are medians over the turns.
"""

import ctypes
import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import ImageFilter, ImageStat

from owl3 import lifeline, tools
from owl3.bench.curate_world import HOSTS, Server, write_pictures
from owl3.bench.tables import Figure, write_figures
from owl3.curate.dedup import group_near
from owl3.curate.run import CurateConfig, curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.errors import ConfigError
from owl3.media import open_image, probe_image

PARTS = ("inspect", "fetch", "stalling", "dedup", "rows")
_BARE = """
import json, sys
from img2dataset import download
download(**json.loads(sys.argv[1]))
"""


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
    _adopt_orphans()
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
                contest = _Contest(world, port, images, image_size, stalls=part == "stalling")
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
        found += [
            Figure(f"images/s over img2dataset's, {corpus}", fetch["speed_ratio"], 0.9),
            Figure(f"CPU per stored image over img2dataset's default, {corpus}", fetch["cpu_ratio"], 0.5, "lower"),
            Figure("the same without start and end of the programs", fetch["steady_cpu_ratio"]),
        ]
        for kind in _KINDS:
            found.append(Figure(f"CPU per stored image, {kind}", fetch[kind]["cpu_ms_per_image"], unit="ms"))
            found.append(Figure("the same without start and end", fetch[kind]["steady_cpu_ms_per_image"], unit="ms"))
        found += [Figure(f"images/s, {kind}", fetch[kind]["images_per_s"]) for kind in _KINDS]
    if "stalling" in result:
        found.append(
            Figure("images/s over img2dataset's, one stalling host in ten", result["stalling"]["speed_ratio"], 3)
        )
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


_KINDS = ("img2dataset", "img2dataset_our_flags", "owl3")
_FEW = 20
"""Pictures of a run that is nearly all start and end."""


@dataclass(frozen=True)
class _Taken:
    """What one run took."""

    images: int
    wall_s: float
    cpu_s: float
    few: "_Taken | None" = None

    def without(self, few: "_Taken") -> "_Taken":
        """This run, beside one over a few pictures."""
        return replace(self, few=few)

    @property
    def images_per_s(self) -> float:
        """Start and end included."""
        return self.images / self.wall_s

    @property
    def cpu_ms(self) -> float:
        """Per stored picture, start and end included."""
        return 1000 * self.cpu_s / self.images

    @property
    def steady_cpu_ms(self) -> float:
        """Per stored picture beyond the few."""
        assert self.few is not None
        return 1000 * (self.cpu_s - self.few.cpu_s) / (self.images - self.few.images)


def _summary(runs: Sequence[_Taken]) -> dict[str, float]:
    return {
        "images_per_s": round(median(run.images_per_s for run in runs), 1),
        "cpu_ms_per_image": round(median(run.cpu_ms for run in runs), 2),
        "steady_cpu_ms_per_image": round(median(run.steady_cpu_ms for run in runs), 2),
    }


class _Contest:
    """img2dataset alone and inside curation, in turns."""

    def __init__(self, world: Path, port: int, images: int, image_size: int, stalls: bool) -> None:
        self._world, self._port, self._all, self._stalls = world, port, images, stalls
        self._images = images
        self._engine = {
            "processes_count": 2,
            "thread_count": 32,
            "image_size": image_size,
            "resize_mode": "keep_ratio",
            "number_sample_per_shard": 1000,
        }

    def run(self, rounds: int, without_start: bool = True) -> dict[str, Any]:
        """Rates of each kind, and ratios of ours over img2dataset as it comes.

        Args:
            without_start: Also run each kind over a few pictures, for the CPU time of the others alone.
        """
        kinds: dict[str, Callable[[Path], int]] = {"img2dataset": self._bare, "owl3": self._ours}
        if not self._stalls:
            kinds["img2dataset_our_flags"] = self._with_our_flags
        taken: dict[str, list[_Taken]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, work in kinds.items():
                few = self._take(kind, work, _FEW) if without_start else _Taken(0, 0.0, 0.0)
                taken[kind].append(self._take(kind, work, self._all).without(few))
        found: dict[str, Any] = {kind: _summary(runs) for kind, runs in taken.items()}
        pairs = list(zip(taken["img2dataset"], taken["owl3"], strict=True))
        found["speed_ratio"] = round(median(ours.images_per_s / bare.images_per_s for bare, ours in pairs), 2)
        found["cpu_ratio"] = round(median(ours.cpu_ms / bare.cpu_ms for bare, ours in pairs), 2)
        found["steady_cpu_ratio"] = round(median(ours.steady_cpu_ms / bare.steady_cpu_ms for bare, ours in pairs), 2)
        return found

    def _take(self, kind: str, work: Callable[[Path], int], images: int) -> "_Taken":
        out = self._world / kind
        self._images = images
        cpu, wall = _cpu_s(), time.monotonic()
        done = work(out)
        taken = _Taken(done, time.monotonic() - wall, _cpu_s() - cpu)
        shutil.rmtree(out)
        return taken

    def _with_our_flags(self, out: Path) -> int:
        return self._bare(out, {"resize_only_if_bigger": True, "skip_reencode": True})

    def _bare(self, out: Path, flags: dict[str, Any] | None = None) -> int:
        """img2dataset as it comes; returns how many pictures it stored."""
        table = self._world / "urls.parquet"
        self._write_table(table, lambda number: f"127.0.0.1:{self._port}")
        options = self._engine | (flags or {}) | {"url_list": str(table), "input_format": "parquet"}
        options |= {"caption_col": "caption", "output_folder": str(out), "output_format": "webdataset", "timeout": 10}
        command = [str(tools.python("img2dataset")), "-c", _BARE, json.dumps(options)]
        environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
        subprocess.run(lifeline.wrap(command), check=True, capture_output=True, env=environment)
        return sum(json.loads(path.read_text())["successes"] for path in out.glob("*_stats.json"))

    def _ours(self, workspace: Path) -> int:
        """`owl3 curate` with all guards; pictures are spread over hosts as on the web, none is dropped as alike."""
        workspace.mkdir(parents=True)
        self._write_table(workspace / "t.parquet", lambda number: f"h{number % HOSTS}.bench.test")
        prepare(SourceConfig(name="b", files=("t.parquet",)), workspace)
        config = CurateConfig.model_validate(
            {
                "name": "b",
                "source": "b",
                "fetch": {"allow_private_hosts": ["*.bench.test"], "hosts": {"connections_per_host": 16}},
                "engine": self._engine,
                "dedup": {"exact": "media_and_caption", "near_caption": "same", "placeholder_urls": None},
            }
        )
        return curate(config, workspace, resolve={"*.bench.test": f"127.0.0.1:{self._port}"}).counts.kept

    def _write_table(self, path: Path, host: Callable[[int], str]) -> None:
        numbers = range(self._images)
        urls = [f"http://{host(number)}/{number:06d}.jpg" for number in numbers]
        pq.write_table(pa.table({"url": urls, "caption": [f"picture {number}" for number in numbers]}), path)


_PR_SET_CHILD_SUBREAPER = 36
_LAST_BREATH_S = 2.0


def _adopt_orphans() -> None:
    """Become the parent of workers whose own parent was ended before them: else their time would be nobody's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _cpu_s() -> float:
    """CPU seconds of this process and of all below it that have ended; waits a moment for those that are ending."""
    until = time.monotonic() + _LAST_BREATH_S
    while time.monotonic() < until:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.05)
        except ChildProcessError:
            break
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


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
