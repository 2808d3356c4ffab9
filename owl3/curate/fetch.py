"""The one door to img2dataset: it fetches through our gateway, resizes, and writes shards aside.

img2dataset 1.47 lives in a tool environment of its own (`owl3/tools`) and is called as a process. What it does not do
is done around it: the guards of `download.py` stand between it and the web, rows keep their state in spools, and a
shard is accepted only when every row that was fetched is in it.

    _work/fetch/00000.parquet     which rows of a shard are fetched: index in the shard, url   (source order)
    _work/spools/00000/           what was fetched (spool.py)
    _work/attempts/00000/0/       img2dataset's input and output: urls, out
    _work/engine/00000.tar        an accepted shard, still in img2dataset's arrival order, with 00000.parquet
"""

import json
import logging
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from owl3 import lifeline, tools
from owl3.config import Config
from owl3.curate.gateway import Gateway
from owl3.curate.inspector import Finish
from owl3.curate.resize import Interpolation, ResizeMode, Resizing
from owl3.errors import InputError
from owl3.samples import url_id
from owl3.secrecy import bare_environment
from owl3.stopping import check_stop

logger = logging.getLogger(__name__)

ROW_COLUMN = "owl3_row"
_POLL_S = 0.05
_BLOCK_BYTES = 512  # of a tar

_LAUNCHER = """
import json, os, sys
from img2dataset import download
download(**json.loads(sys.argv[1]))
os._exit(0)  # its logger process can take seconds to say goodbye
"""
_END_S = 5.0
_MAX_PNG_LEVEL = 9
_BLURRED_QUALITY = 95
_NOT_WHAT_BUT_HOW = {
    *("processes_count", "thread_count", "distributor", "subjob_size", "max_shard_retry", "stall_s", "gateway_host")
}


class EngineConfig(Config):
    """img2dataset's own flags, under their own names; what differs from its defaults is marked."""

    processes_count: int = Field(default=1, ge=1)
    thread_count: int = Field(default=64, ge=1)  # img2dataset: 256
    image_size: int = Field(default=1024, ge=1)  # img2dataset: 256
    resize_mode: ResizeMode = "keep_ratio_largest"
    resize_only_if_bigger: bool = True  # img2dataset: False, which scales small pictures up
    upscale_interpolation: Interpolation = "lanczos"
    downscale_interpolation: Interpolation = "area"
    encode_quality: int = Field(default=95, ge=0, le=100)
    encode_format: Literal["jpg", "png", "webp"] = "jpg"
    skip_reencode: bool = True  # img2dataset: False; a JPEG that needs no resizing is stored as it came
    extract_exif: bool = False  # img2dataset: True; EXIF says where and with whose camera a picture was taken
    number_sample_per_shard: int = Field(default=10_000, ge=1)
    distributor: Literal["multiprocessing", "pyspark", "ray", "none"] = "multiprocessing"
    """Which of img2dataset's; `none` is ours: no img2dataset, children of this process resize, to the same bytes."""
    subjob_size: int = Field(default=1_000, ge=1)
    gateway_host: str = "127.0.0.1"
    """Ours. Address of this machine at which workers of a ray or spark cluster reach it; all fetching stays here."""
    max_shard_retry: int = Field(default=1, ge=0)
    stall_s: float = Field(default=300.0, gt=0)
    """Ours. With no row answered and no shard done for so long, img2dataset is taken to hang and started again."""

    @model_validator(mode="after")
    def _fits_format(self) -> Self:
        if self.encode_format == "png" and self.encode_quality > _MAX_PNG_LEVEL:
            raise ValueError(
                f"encode_quality {self.encode_quality} is for jpg and webp; with encode_format: png it says how hard "
                f"to compress, 0 to {_MAX_PNG_LEVEL}"
            )
        if self.distributor == "none" and self.extract_exif:
            raise ValueError("extract_exif is img2dataset's; with distributor: none it has no effect, take it out")
        if self.encode_format != "jpg" and self.skip_reencode:
            raise ValueError(
                f"skip_reencode stores a {self.encode_format} as it came, camera and place included, which are taken "
                "out of jpg alone; set engine.skip_reencode to false"
            )
        return self

    @property
    def jpeg_quality(self) -> int:
        """Of pictures that we change ourselves; they become JPEGs, whatever the others are."""
        return _BLURRED_QUALITY if self.encode_format == "png" else self.encode_quality

    @property
    def resizing(self) -> Resizing:
        """The flags that shape a picture."""
        return Resizing(**self.model_dump(include={*Resizing.__slots__}))

    @property
    def finish(self) -> Finish:
        """Which pictures are not left to img2dataset."""
        if self.distributor == "none":
            return "all"
        return "unusual" if self.extract_exif else "untouched"

    def recipe(self) -> dict[str, Any]:
        """The flags that shape the output; how many processes and threads work on it is not among them."""
        return self.model_dump(mode="json", exclude=_NOT_WHAT_BUT_HOW)

    def flags(self) -> dict[str, Any]:
        """What `img2dataset.download` is called with, beside input and output."""
        return self.model_dump(exclude={"stall_s", "max_shard_retry", "gateway_host"}) | {
            "input_format": "parquet",
            "url_col": "url",
            "output_format": "webdataset",
            "save_additional_columns": [ROW_COLUMN],
            "compute_hash": None,  # ours are of the bytes as fetched and as stored
            "timeout": 86_400,  # the gateway always answers: within its deadline, once a host's slot is free
            "retries": 0,  # the gateway retries
            "disallowed_header_directives": [],  # the gateway has read the real server's headers
            "max_shard_retry": 1,
        }


def fetch_shards(
    work: Path, shards: Sequence[str], config: EngineConfig, gateway: Gateway, answered: Callable[[int], None]
) -> None:
    """Run img2dataset until every shard of `shards` lies in `work/engine`.

    Args:
        answered: Told how many rows more were answered; those of a shard that is done again count again.

    Raises:
        InputError: img2dataset failed or hung more than `max_shard_retry` times; the message ends with its last line.
        InputError: its distributor is missing.
        Stopped: what fetches shall stop; what came in is kept.
    """
    check_distributor(config)
    engine = work / "engine"
    engine.mkdir(parents=True, exist_ok=True)
    # Named by the first shard: who fetches other shards of the same corpus at the same time has folders of its own.
    attempts = work / "attempts" / shards[0]
    shutil.rmtree(attempts, ignore_errors=True)
    for attempt in range(config.max_shard_retry + 1):
        pending = [shard for shard in shards if not (engine / f"{shard}.parquet").is_file()]
        if not pending:
            return
        folder = attempts / str(attempt)
        take = _Acceptor(work, gateway, last_try=attempt == config.max_shard_retry)
        _attempt(folder, pending, config, gateway, accept=take, answered=answered)
        shutil.rmtree(folder)
    missing = [shard for shard in shards if not (engine / f"{shard}.parquet").is_file()]
    if missing:
        raise InputError(f"img2dataset did not finish shards {', '.join(missing[:5])}; run again to resume")


def check_distributor(config: EngineConfig) -> None:
    """Make sure that img2dataset is there, and ray or pyspark where it is asked for; it would silently do nothing.

    Raises:
        InputError: it is not; the message says how to install it.
    """
    python = tools.python("img2dataset")
    if config.distributor == "multiprocessing":
        return
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({config.distributor!r}) is None)"
    if subprocess.run([python, "-c", code], check=False).returncode:
        raise InputError(
            f"engine.distributor {config.distributor}: not there; run: {python} -m pip install {config.distributor}"
        )


def _attempt(
    folder: Path,
    pending: Sequence[str],
    config: EngineConfig,
    gateway: Gateway,
    *,
    accept: Callable[[str, Path], None],
    answered: Callable[[int], None],
) -> None:
    """Start img2dataset once over the pending shards and collect what it completes."""
    work, urls, out = folder.parents[2], folder / "urls", folder / "out"
    urls.mkdir(parents=True)
    for index, shard in enumerate(pending):  # img2dataset numbers shards by file order, one file is one shard
        num_rows = pq.read_metadata(work / "fetch" / f"{shard}.parquet").num_rows
        rows = {"url": [gateway.url(shard, row) for row in range(num_rows)], ROW_COLUMN: list(range(num_rows))}
        pq.write_table(pa.table(rows), urls / f"{index:09d}.parquet")
    options = config.flags() | {"url_list": str(urls.resolve()), "output_folder": str(out.resolve())}
    log_path = folder / "img2dataset.log"
    open_shards = dict(enumerate(pending))
    with log_path.open("wb") as log, _Engine(options, log.fileno()) as engine:
        last_sign, seen = time.monotonic(), gateway.answered
        while True:
            running = engine.is_running()  # asked before looking, so that nothing finished is missed
            for index in [i for i in open_shards if (out / f"{i:05d}_stats.json").is_file()]:
                accept(open_shards.pop(index), out / f"{index:05d}")
                last_sign = time.monotonic()
            gateway.check()
            check_stop()
            if gateway.answered != seen:
                answered(gateway.answered - seen)
                last_sign, seen = time.monotonic(), gateway.answered
            if not running or not open_shards:
                break
            if time.monotonic() - last_sign > config.stall_s:
                logger.warning("img2dataset gave no sign of life for %.0f s; ending it", config.stall_s)
                break
            time.sleep(_POLL_S)
    if open_shards:
        lines = log_path.read_text("utf-8", "replace").strip().splitlines() or ["no output"]
        logger.warning("img2dataset left %d shards undone: %s", len(open_shards), lines[-1][-300:])


class _Acceptor:
    """Takes a shard over if nothing that was fetched is missing from it, else leaves it for the next attempt."""

    def __init__(self, work: Path, gateway: Gateway, last_try: bool) -> None:
        self._work = work
        self._gateway = gateway
        self._last_try = last_try

    def __call__(self, shard: str, made: Path) -> None:
        """Check the shard that img2dataset wrote as `made`.tar and .parquet against what was fetched."""
        rows = pq.read_table(made.with_suffix(".parquet"), columns=[ROW_COLUMN, "status"])
        status = dict(zip(rows.column(ROW_COLUMN).to_pylist(), rows.column("status").to_pylist(), strict=True))
        urls = pq.read_table(self._work / "fetch" / f"{shard}.parquet", columns=["url"]).column("url").to_pylist()
        spool = self._gateway.spool(shard)
        outcomes = [spool.get(url_id(url)) for url in urls]
        lost = sum(
            outcome is None or (outcome.is_for_engine and status.get(row) not in ("success", "failed_to_resize"))
            for row, outcome in enumerate(outcomes)
        )
        if lost and not self._last_try:
            logger.warning("shard %s: img2dataset lost %d of %d rows; doing it again", shard, lost, len(urls))
            return
        engine = self._work / "engine"
        made.with_suffix(".tar").replace(engine / f"{shard}.tar")
        made.with_suffix(".parquet").replace(engine / f"{shard}.parquet")  # last: its presence means accepted
        self._gateway.release(shard)


def engine_places(tar: Path) -> dict[str, tuple[int, int]]:
    """Where the pictures of a tar that img2dataset wrote lie: key to offset and bytes.

    Only its headers are read, at a tenth of what `tarfile` costs; its names are short, so the headers say it all.
    """
    places: dict[str, tuple[int, int]] = {}
    offset, end = 0, tar.stat().st_size
    with tar.open("rb") as handle:
        while offset + _BLOCK_BYTES <= end:
            handle.seek(offset)
            header = handle.read(_BLOCK_BYTES)
            name = header[:100].rstrip(b"\0").decode("ascii")
            if not name:
                break  # the blocks of zeros at the end
            num_bytes = int(header[124:136].rstrip(b" \0"), 8)
            key, _, extension = name.partition(".")
            if header[156:157] == b"0" and extension not in ("json", "txt"):
                places[key] = (offset + _BLOCK_BYTES, num_bytes)
            offset += _BLOCK_BYTES + -(-num_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
    return places


class _Engine:
    """The img2dataset process and everything it starts, ended together, and with us however we end."""

    def __init__(self, options: dict[str, Any], log: int) -> None:
        environment = {key: value for key, value in bare_environment().items() if not key.lower().endswith("_proxy")}
        environment |= {"NO_ALBUMENTATIONS_UPDATE": "1", "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        environment |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}  # no report, no token file
        python = str(tools.python("img2dataset"))
        environment.setdefault("PYSPARK_PYTHON", python)  # else Spark's workers are the first python3 on the path
        command = [python, "-c", _LAUNCHER, json.dumps(options)]
        self._process = subprocess.Popen(
            lifeline.wrap(command),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # a SIGKILL to our whole group must not take the lifeline with it
        )

    def __enter__(self) -> "_Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()  # the lifeline passes it on and ends the whole group
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def is_running(self) -> bool:
        """Is the main process alive?"""
        return self._process.poll() is None
