"""Curation in a thread stops with what started it: at once, with its processes, and silent about rows in flight."""

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.hostile import hostile_server, picture
from owl3.curate.config import CurateConfig
from owl3.curate.run import curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.errors import Stopped
from owl3.stopping import stopped_together

HOST = "photos.owl3.test"
QUICK, HELD = 6, 3
"""Pictures that come at once, and pictures that a person waits for."""


def held_back(gate: threading.Event, arrived: threading.Semaphore, body: bytes) -> Callable[[Any], None]:
    """Say nothing until the gate opens."""

    def act(handler: Any) -> None:
        arrived.release()
        gate.wait(250)
        handler.answer(200, {}, body)

    return act


@pytest.mark.processes
def test_a_stopped_run_leaves_no_process_and_no_outcome_of_what_was_in_flight(workspace: Path) -> None:
    gate, arrived = threading.Event(), threading.Semaphore(0)
    rows = [{"url": f"http://{HOST}/{number}.jpg", "caption": f"picture {number}"} for number in range(QUICK + HELD)]
    pq.write_table(pa.Table.from_pylist(rows), workspace / "rows.parquet")
    fetch = {"contact": "https://owl3.test/contact", "allow_private_hosts": ["*.owl3.test"], "retries": 0}
    fetch |= {"timeout": 250, "deadline_s": 250, "hosts": {"connections_per_host": QUICK + HELD}}
    config = CurateConfig.model_validate({"name": "web", "source": "web", "fetch": fetch})
    prepare(SourceConfig(name="web", files=("rows.parquet",)), workspace)
    journal = workspace / "shards" / "web" / "_work" / "spools" / "00000" / "journal.jsonl"
    with hostile_server() as web, ThreadPoolExecutor(1) as pool:
        for number in range(QUICK):
            web.page(f"/{number}.jpg", picture(number, (200, 150)))
        for number in range(QUICK, QUICK + HELD):
            web.special[f"/{number}.jpg"] = held_back(gate, arrived, picture(number, (200, 150)))
        where = {"*.owl3.test": f"127.0.0.1:{web.port}"}

        def run() -> Any:
            return curate(config, workspace, resolve=where)

        with pytest.raises(KeyboardInterrupt), stopped_together():
            running = pool.submit(contextvars.copy_context().run, run)
            for _ in range(HELD):
                assert arrived.acquire(timeout=120)
            while not (journal.is_file() and journal.read_bytes().count(b"\n") == QUICK):
                assert not running.done(), running.exception()
                time.sleep(0.02)
            raise KeyboardInterrupt
        with pytest.raises(Stopped):
            running.result(timeout=120)
        left = [child.info["cmdline"] for child in psutil.process_iter(["cmdline"]) if _works_in(child, workspace)]
        assert left == []
        assert journal.read_bytes().count(b"\n") == QUICK, "nobody said anything about the others"
        gate.set()
        assert run().counts.kept == QUICK + HELD
        assert [web.asked[f"{HOST}/{number}.jpg"] for number in range(QUICK)] == [1] * QUICK


def _works_in(process: psutil.Process, folder: Path) -> bool:
    return any(str(folder) in word for word in process.info["cmdline"] or ())
