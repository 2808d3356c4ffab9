"""On which engine the tasks of a flow run: threads of the worker, or a Ray or Dask cluster, by one setting.

    OWL3_TASK_RUNNER=threads          threads of this process (the default)
    OWL3_TASK_RUNNER=ray              a Ray cluster of its own, on this machine
    OWL3_TASK_RUNNER=ray://HOST:PORT  a Ray cluster that is there
    OWL3_TASK_RUNNER=dask             as `ray`, on Dask; tcp://HOST:PORT for a scheduler that is there

All machines of a cluster see the workspace under the same path. How many tasks run at once changes no byte.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from owl3.errors import ConfigError

VARIABLE = "OWL3_TASK_RUNNER"
AT_ONCE = "OWL3_TASKS_AT_ONCE"


def chosen_runner() -> TaskRunner[Any]:
    """The task runner that the environment names.

    Raises:
        ConfigError: there is no such engine, it is not installed, or the number of tasks is none.
    """
    asked = os.environ.get(VARIABLE, "threads")
    at_once = _tasks_at_once()
    address = asked if "://" in asked else None
    if asked == "threads":
        return ThreadPoolTaskRunner(max_workers=at_once)
    if asked == "ray" or asked.startswith("ray://"):
        started = {} if address else {"num_cpus": at_once, "include_dashboard": False}
        return _imported("prefect_ray", "RayTaskRunner", "owl3[ray]")(address=address, init_kwargs=started)
    if asked == "dask" or asked.startswith("tcp://"):
        cluster = {} if address else {"cluster_kwargs": {"n_workers": at_once, "threads_per_worker": 1}}
        return _imported("prefect_dask", "DaskTaskRunner", "prefect-dask")(address=address, **cluster)
    raise ConfigError(f"{VARIABLE}={asked}: one of threads, ray, ray://HOST:PORT, dask, tcp://HOST:PORT")


def _tasks_at_once() -> int:
    given = os.environ.get(AT_ONCE, "2")
    if not given.isdecimal() or int(given) < 1:
        raise ConfigError(f"{AT_ONCE}={given}: a number of tasks, 1 or more")
    return int(given)


def _imported(module: str, name: str, package: str) -> Callable[..., TaskRunner[Any]]:
    import importlib

    try:
        found: Callable[..., TaskRunner[Any]] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ConfigError(f"{VARIABLE}: {module} is not installed; pip install '{package}'") from error
    return found
