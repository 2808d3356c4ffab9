"""Curation and img2dataset over the same pictures of the same server, in turns: images per second, CPU per image.

img2dataset             as it comes: its defaults scale small pictures up and encode every one
img2dataset_our_flags   without what our recipes do without: resizing small pictures, encoding them again
owl3                    `owl3 curate` with every guard on; img2dataset is its engine
owl3_alone              the same with `engine.distributor: none`: the same bytes without img2dataset
floor                   the work on the pictures themselves, and nothing else: a plain GET, one look, resizing what
                        is too big, hashes, a tar; no guards, no facts kept, no process but one
"""

import asyncio
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
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import pyarrow as pa
import pyarrow.parquet as pq

from owl3 import lifeline, tools
from owl3.bench.curate_world import HOSTS
from owl3.curate.config import CurateConfig
from owl3.curate.engine import EngineConfig
from owl3.curate.run import curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.media import MAX_PIXELS, probe_image
from owl3.shards import ShardWriter

KINDS = ("img2dataset", "img2dataset_our_flags", "owl3", "owl3_alone", "floor")
_OURS = ("owl3", "owl3_alone", "floor")
_BARE = """
import json, sys
from img2dataset import download
download(**json.loads(sys.argv[1]))
"""
_FLOOR = "import json, sys; from owl3.bench.curate_contest import floor; floor(**json.loads(sys.argv[1]))"
_AT_ONCE = 64
_FEW = 20
"""Pictures of a run that is nearly all start and end."""


@dataclass(frozen=True)
class Taken:
    """What one run took."""

    images: int
    wall_s: float
    cpu_s: float
    few: "Taken | None" = None

    def without(self, few: "Taken") -> "Taken":
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


def summary(runs: Sequence[Taken]) -> dict[str, float]:
    """Medians over the runs of one kind."""
    return {
        "images_per_s": round(median(run.images_per_s for run in runs), 1),
        "cpu_ms_per_image": round(median(run.cpu_ms for run in runs), 2),
        "steady_cpu_ms_per_image": round(median(run.steady_cpu_ms for run in runs), 2),
    }


class Contest:
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
        kinds: dict[str, Callable[[Path], int]] = {
            "img2dataset": self._bare,
            "owl3": self._ours,
            "owl3_alone": partial(self._ours, distributor="none"),
        }
        if not self._stalls:
            kinds |= {"img2dataset_our_flags": self._with_our_flags, "floor": self._floor}
        taken: dict[str, list[Taken]] = {kind: [] for kind in kinds}
        for _ in range(rounds):
            for kind, work in kinds.items():
                few = self._take(kind, work, _FEW) if without_start else Taken(0, 0.0, 0.0)
                taken[kind].append(self._take(kind, work, self._all).without(few))
        found: dict[str, Any] = {kind: summary(runs) for kind, runs in taken.items()}
        for kind in _OURS:
            pairs = list(zip(taken["img2dataset"], taken.get(kind, ()), strict=False))
            if pairs:
                found[kind] |= {
                    "speed_ratio": round(median(ours.images_per_s / bare.images_per_s for bare, ours in pairs), 2),
                    "cpu_ratio": round(median(ours.cpu_ms / bare.cpu_ms for bare, ours in pairs), 2),
                }
            if pairs and without_start:
                steady = [ours.steady_cpu_ms / bare.steady_cpu_ms for bare, ours in pairs]
                found[kind]["steady_cpu_ratio"] = round(median(steady), 2)
        return found

    def _take(self, kind: str, work: Callable[[Path], int], images: int) -> "Taken":
        out = self._world / kind
        self._images = images
        cpu, wall = _cpu_s(), time.monotonic()
        done = work(out)
        taken = Taken(done, time.monotonic() - wall, _cpu_s() - cpu)
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

    def _floor(self, out: Path) -> int:
        """The work on the pictures themselves, in a process whose time can be told from ours."""
        told = {"port": self._port, "images": self._images, "image_size": self._engine["image_size"], "out": str(out)}
        subprocess.run([sys.executable, "-c", _FLOOR, json.dumps(told)], check=True)
        return self._images

    def _ours(self, workspace: Path, distributor: str = "multiprocessing") -> int:
        """`owl3 curate` with all guards; pictures are spread over hosts as on the web, none is dropped as alike."""
        workspace.mkdir(parents=True)
        self._write_table(workspace / "t.parquet", lambda number: f"h{number % HOSTS}.bench.test")
        prepare(SourceConfig(name="b", files=("t.parquet",)), workspace)
        config = CurateConfig.model_validate(
            {
                "name": "b",
                "source": "b",
                "fetch": {"allow_private_hosts": ["*.bench.test"], "hosts": {"connections_per_host": 16}},
                "engine": self._engine | {"distributor": distributor},
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


def adopt_orphans() -> None:
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


def floor(port: int, images: int, image_size: int, out: str) -> None:
    """Fetch pictures, look at each once, resize those that are larger than `image_size`, and write a tar."""
    resizing = EngineConfig(image_size=image_size, resize_mode="keep_ratio").resizing

    async def run() -> None:
        slots = asyncio.Semaphore(_AT_ONCE)
        with ShardWriter(Path(out) / "00000.tar") as tar:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

                async def one(number: int) -> None:
                    async with slots, session.get(f"http://127.0.0.1:{port}/{number:06d}.jpg") as response:
                        data = await response.read()
                    facts, digest = probe_image(data), hashlib.sha256(data).hexdigest()
                    made = None if resizing.leaves_alone(facts, data) else resizing.apply(data, facts, MAX_PIXELS)
                    stored = made.data if made else data
                    tar.add(f"{number:06d}-{digest[:8]}-{hashlib.sha256(stored).hexdigest()[:8]}", {"jpg": stored})

                await asyncio.gather(*(one(number) for number in range(images)))

    asyncio.run(run())
