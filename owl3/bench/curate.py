"""What curation costs, against img2dataset alone and against the naive way of looking at pictures.

    fetch       a local server of web-sized JPEGs: bare img2dataset (its defaults, and with our resize flags) and
                `owl3 curate` with every guard on; images per second, and CPU milliseconds per image of all processes
    stalling    the same with one host in ten that accepts and never answers
    inspect     header, hashes, blur and entropy from one reduced decode, against one full decode each (the naive
                chain) and against decoding alone; images per CPU second
    dedup       near duplicates among 0.1, 1 and 10 million hashes: CPU seconds and peak memory
    rows        a URL table of a million rows, prepared and decided on: peak memory

Everything that is compared runs in turns, so that a busy machine slows both sides.
"""

import functools
import hashlib
import http.server
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import imagehash
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFilter, ImageStat

from owl3 import lifeline, tools
from owl3.curate.dedup import group_near
from owl3.curate.run import CurateConfig, curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.media import encode_jpeg, open_image, probe_image

_HOSTS = 10
_ENGINE = {"processes_count": 2, "thread_count": 32, "image_size": 384, "number_sample_per_shard": 1000}
_BARE = """
import json, sys
from img2dataset import download
download(**json.loads(sys.argv[1]))
"""


def run(
    out_dir: Path,
    *,
    images: int = 1000,
    rounds: int = 2,
    stalling: bool = True,
    hashes: int = 10_000_000,
    rows: int = 1_000_000,
) -> dict[str, Any]:
    """Measure; return rates, ratios and peaks.

    Args:
        images: Pictures on the local server.
        hashes: Largest set for the near-duplicate search.
        rows: Rows of the URL table whose memory is measured.
    """
    world = out_dir / "curate-bench"
    shutil.rmtree(world, ignore_errors=True)
    files = _write_pictures(world / "www", images)
    result: dict[str, Any] = {"images": images, "inspect": _inspect(files[:200], rounds)}
    with _Server(world / "www", stalls=False) as port:
        result["fetch"] = _fetch(world, port, images, rounds, stall=False)
    if stalling:
        with _Server(world / "www", stalls=True) as port:
            result["stalling"] = _fetch(world, port, images, 1, stall=True)
    result["dedup"] = {str(n): _in_child(_dedup, n) for n in (hashes // 100, hashes // 10, hashes)}
    result["rows"] = _in_child(_many_rows, rows)
    (out_dir / "curate.json").write_text(json.dumps(result, indent=1) + "\n")
    return result


def _write_pictures(folder: Path, count: int) -> list[Path]:
    """JPEGs of 300 to 1,000 px with the detail of photos, about 100 kB each; names tell the host that serves them."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    paths = []
    for number in range(count):
        width, height = (int(side) for side in rng.integers(300, 1000, 2))
        coarse = Image.fromarray(rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)).resize((width, height))
        grain = rng.normal(0, 12, (height, width, 3))
        pixels = np.clip(np.asarray(coarse, dtype=np.float32) + grain, 0, 255).astype(np.uint8)
        paths.append(folder / f"{number:06d}.jpg")
        paths[-1].write_bytes(encode_jpeg(Image.fromarray(pixels), 85))
    return paths


class _Handler(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stalls = False

    def log_message(self, *_: Any) -> None:
        """Stay silent."""

    def do_GET(self) -> None:
        """Serve a file; every tenth one never comes when hosts stall."""
        number = Path(self.path).stem
        if self.stalls and number.isdecimal() and int(number) % _HOSTS == 0:
            time.sleep(3600)
        super().do_GET()


class _Server:
    """The server in a process of its own, so that its CPU time is not ours."""

    def __init__(self, folder: Path, stalls: bool) -> None:
        self._folder, self._stalls = folder, stalls

    def __enter__(self) -> int:
        ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.Process(target=_serve, args=(self._folder, self._stalls, theirs), daemon=True)
        self._process.start()
        return int(ours.recv())

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()


def _serve(folder: Path, stalls: bool, told: Any) -> None:
    _Handler.stalls = stalls
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    told.send(server.server_address[1])
    threading.Event().wait()


def _fetch(world: Path, port: int, images: int, rounds: int, stall: bool) -> dict[str, Any]:
    """img2dataset alone and inside curation, in turns."""
    times: dict[str, list[tuple[float, float]]] = {}
    for turn in range(rounds):
        kinds: dict[str, Callable[[Path], int]] = {"img2dataset": lambda out: _bare(world, out, port, images, {})}
        if not stall:
            flags = {"resize_only_if_bigger": True, "skip_reencode": True, "resize_mode": "keep_ratio_largest"}
            kinds["img2dataset_our_flags"] = lambda out, f=flags: _bare(world, out, port, images, f)  # type: ignore[misc]
        kinds["owl3"] = lambda out: _ours(out, port, images)
        for kind, work in kinds.items():
            wall, cpu = time.monotonic(), _cpu_s()
            done = work(world / f"{kind}-{turn}-{stall}")
            times.setdefault(kind, []).append(((time.monotonic() - wall) / done, (_cpu_s() - cpu) / done))
    found: dict[str, Any] = {
        kind: {
            "images_per_s": round(1 / median(wall for wall, _ in taken), 1),
            "cpu_ms_per_image": round(1000 * median(cpu for _, cpu in taken), 2),
        }
        for kind, taken in times.items()
    }
    found["speed_ratio"] = round(found["owl3"]["images_per_s"] / found["img2dataset"]["images_per_s"], 2)
    found["cpu_ratio"] = round(found["owl3"]["cpu_ms_per_image"] / found["img2dataset"]["cpu_ms_per_image"], 2)
    return found


def _cpu_s() -> float:
    """CPU seconds of this process and of all children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _url(number: int, host: str) -> str:
    return f"http://{host}/{number:06d}.jpg"


def _bare(world: Path, out: Path, port: int, images: int, flags: dict[str, Any]) -> int:
    """img2dataset as it comes; returns how many pictures it stored."""
    table = world / f"urls-{port}.parquet"
    urls = [_url(number, f"127.0.0.1:{port}") for number in range(images)]
    pq.write_table(pa.table({"url": urls, "caption": [f"picture {number}" for number in range(images)]}), table)
    options = _ENGINE | flags | {"url_list": str(table), "input_format": "parquet", "caption_col": "caption"}
    options |= {"output_folder": str(out), "output_format": "webdataset", "timeout": 10}
    command = [str(tools.python("img2dataset")), "-c", _BARE, json.dumps(options)]
    environment = os.environ | {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled"}
    subprocess.run(lifeline.wrap(command), check=True, capture_output=True, env=environment)
    return sum(json.loads(path.read_text())["successes"] for path in out.glob("*_stats.json"))


def _ours(workspace: Path, port: int, images: int) -> int:
    """`owl3 curate` with all guards; pictures are spread over hosts as on the web."""
    workspace.mkdir(parents=True)
    urls = [_url(number, f"h{number % _HOSTS}.bench.test") for number in range(images)]
    pq.write_table(
        pa.table({"url": urls, "caption": [f"picture {number}" for number in range(images)]}), workspace / "t.parquet"
    )
    prepare(SourceConfig(name="b", files=("t.parquet",)), workspace)
    config = CurateConfig.model_validate(
        {
            "name": "b",
            "source": "b",
            "fetch": {"allow_private_hosts": ["*.bench.test"], "hosts": {"connections_per_host": 16}},
            "engine": _ENGINE,
        }
    )
    return curate(config, workspace, resolve={"*.bench.test": f"127.0.0.1:{port}"}).counts.kept


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
