"""`python -m flows.scale`: what thousands of shards cost Prefect, grouped as `curate` groups them and one by one.

    python -m flows.scale --shards 40000 --task-runs 64

Shards are simulated: each is a number that is counted, so all that is measured is the orchestration. With
PREFECT_API_URL set, that server is used (PostgreSQL, say); else one of its own on embedded SQLite.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_HOME

from flows.runners import chosen_runner
from flows.steps import run_locally


@task(name="count", task_run_name="count {first}-{last}", tags=["scale"], cache_policy=NO_CACHE, persist_result=False)
def count(first: int, last: int) -> int:
    """Stand for a group of shards."""
    return sum(1 for _ in range(first, last))


@flow(name="scale", flow_run_name="scale {shards} by {size}", task_runner=chosen_runner())
def scale(shards: int, size: int) -> int:
    """Take `shards` simulated shards, `size` in each task run; returns how many were taken."""
    runs = [count.submit(first, min(first + size, shards)) for first in range(0, shards, size)]
    return sum(run.result() for run in runs)


def measure(shards: int, task_runs: int, single: int) -> dict[str, Any]:
    """Run grouped, then `single` shards one by one; seconds and bytes of both.

    Args:
        shards: Simulated shards of the grouped run.
        task_runs: Most task runs it is cut into.
        single: Task runs of the second run; what one costs is taken times `shards`.
    """
    run_locally(scale, shards=1, size=1)  # start-up and migrations
    grouped = _timed(shards, -(-shards // task_runs))
    one_by_one = _timed(single, 1)
    per_run = {key: value / single for key, value in one_by_one.items() if value is not None}
    return {
        "shards": shards,
        "task_runs": task_runs,
        "grouped": grouped,
        "measured_one_by_one": single,
        "per_task_run": per_run,
        "one_by_one_would_take": {key: value * shards for key, value in per_run.items()},
    }


def _timed(shards: int, size: int) -> dict[str, float | None]:
    before, began = _database_bytes(), time.monotonic()
    taken = run_locally(scale, shards=shards, size=size)
    assert taken == shards
    after = _database_bytes()
    return {
        "seconds": round(time.monotonic() - began, 1),
        "database_bytes": None if before is None or after is None else after - before,
    }


def _database_bytes() -> int | None:
    """Size of the embedded server's database; None on a server of somebody else."""
    if os.environ.get("PREFECT_API_URL"):
        return None
    home = Path(PREFECT_HOME.value())
    return sum(path.stat().st_size for path in home.glob("prefect.db*"))


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(prog="python -m flows.scale", description=__doc__)
    parser.add_argument("--shards", type=int, default=40_000)
    parser.add_argument("--task-runs", type=int, default=64)
    parser.add_argument("--single", type=int, default=200, help="task runs to measure one by one")
    options = parser.parse_args()
    sys.stdout.write(json.dumps(measure(options.shards, options.task_runs, options.single)) + "\n")


if __name__ == "__main__":
    main()
