"""The one door to img2dataset: it asks our gateway for every row, resizes what has to be, and writes shards aside.

img2dataset 1.47 lives in a tool environment of its own (`owl3/tools`) and is called as a process. What it does not do
is done around it: the guards of `download.py` stand between it and the web, rows keep their state in spools, and a
shard is accepted only when every picture that it had to resize is in it. Of pictures that are finished when they come
(`inspector.py`) it gets stand-ins, and what is stored lies in the spool.

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
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from owl3 import lifeline, tools
from owl3.curate.engine import ROW_COLUMN, EngineConfig
from owl3.curate.gateway import Gateway
from owl3.errors import InputError
from owl3.samples import url_id
from owl3.secrecy import bare_environment
from owl3.stopping import check_stop

logger = logging.getLogger(__name__)

_POLL_S = 0.05
_BLOCK_BYTES = 512  # of a tar

_LAUNCHER = """
import json, os, sys
from img2dataset import download
download(**json.loads(sys.argv[1]))
os._exit(0)  # its logger process can take seconds to say goodbye
"""
_END_S = 5.0


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
    """Takes a shard over if no picture that was left to img2dataset is missing, else leaves it for the next attempt."""

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
