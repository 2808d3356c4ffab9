"""Cancelling a flow run while it fetches ends img2dataset and all its kin at once, and keeps what came in."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate.hostile import Hostile, hostile_server, picture
from prefect_world import ask, cancel, command_line, deploy, start, started_by, state, wait_until, worker

from owl3.manifest import read_manifest

HOST = "photos.owl3.test"
POOL = "cancelling-curate"
WAIT_S = 200.0
QUICK, HELD = 12, 6
"""Pictures that come at once, and pictures that a person waits for."""


@pytest.fixture
def web() -> Iterator[Hostile]:
    with hostile_server() as world:
        yield world


def held_back(gate: threading.Event, body: bytes) -> Callable[[Any], None]:
    """Say nothing until the gate opens."""

    def act(handler: Any) -> None:
        gate.wait(WAIT_S)
        handler.answer(200, {}, body)

    return act


@pytest.mark.processes
def test_a_cancelled_fetch_ends_its_processes_at_once_and_the_next_run_fetches_the_rest(
    web: Hostile, prefect_environment: dict[str, str], prefect_server: str, tmp_path: Path
) -> None:
    gate = threading.Event()
    for number in range(QUICK):
        web.page(f"/{number}.jpg", picture(number, (200, 150)))
    for number in range(QUICK, QUICK + HELD):
        web.special[f"/{number}.jpg"] = held_back(gate, picture(number, (200, 150)))
    parameters = write_recipe(tmp_path)
    environment = {**prefect_environment, "OWL3_RESOLVE": f"*.owl3.test=127.0.0.1:{web.port}"}
    work = tmp_path / "workspace" / "shards" / "web" / "_work"
    with worker(POOL, environment, tmp_path / "worker.log") as process:
        deploy("curate", POOL)
        first = start("curate", parameters)
        wait_until(lambda: state(first).is_final() or spooled(work) == QUICK, process, WAIT_S)
        assert state(first).is_running(), state(first).message
        family = started_by(process)
        assert "img2dataset" in " ".join(map(command_line, family))
        cancel(first)
        wait_until(lambda: state(first).is_final(), process, WAIT_S)
        _, alive = psutil.wait_procs(family, timeout=60)
        assert state(first).is_cancelled()
        assert not alive, [child.cmdline() for child in alive]
        wait_until(
            lambda: "run again to resume" in how_tasks_ended(first), process, WAIT_S
        )  # not by SIGKILL, 30 s later
        assert not started_by(process), "neither a child nor a zombie is left"
        assert spooled(work) == QUICK
        gate.set()
        second = start("curate", parameters)
        wait_until(lambda: state(second).is_final(), process, WAIT_S)
        assert state(second).is_completed(), state(second).message
    assert read_manifest(work.parent).counts.kept == QUICK + HELD
    assert [web.asked[f"{HOST}/{number}.jpg"] for number in range(QUICK)] == [1] * QUICK, "kept, not fetched again"


def how_tasks_ended(run: Any) -> str:
    """What the states of a flow run's tasks say."""
    from prefect.client.schemas.filters import FlowRunFilter

    mine = FlowRunFilter.model_validate({"id": {"any_": [run]}})
    return "\n".join(str(task.state and task.state.message) for task in ask("read_task_runs", flow_run_filter=mine))


def spooled(work: Path) -> int:
    """How many URLs have an outcome."""
    return sum(path.read_bytes().count(b"\n") for path in work.glob("spools/*/journal.jsonl"))


def write_recipe(folder: Path) -> dict[str, Any]:
    """One set of pictures, in two shards; what the flow is given for it."""
    workspace = folder / "workspace"
    workspace.mkdir()
    rows = [{"url": f"http://{HOST}/{n}.jpg", "caption": f"picture {n}"} for n in range(QUICK + HELD)]
    pq.write_table(pa.Table.from_pylist(rows), workspace / "rows.parquet")
    fetch = {"contact": "https://owl3.test/contact", "allow_private_hosts": ["*.owl3.test"]}
    fetch |= {"timeout": WAIT_S, "deadline_s": WAIT_S, "hosts": {"connections_per_host": 32}}
    given = {
        "name": "photos",
        "sources": [{"name": "web", "files": ["rows.parquet"]}],
        "curate": [{"name": "web", "source": "web", "fetch": fetch, "engine": {"number_sample_per_shard": 9}}],
    }
    (folder / "photos.yaml").write_text(json.dumps(given))  # JSON is YAML
    return {"recipe": str(folder / "photos.yaml"), "workspace": str(workspace)}
