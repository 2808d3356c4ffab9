"""Which tasks there are: every module of `owl3/eval/tasks/` that does not begin with an underscore."""

from __future__ import annotations

import difflib
from importlib import import_module, resources
from typing import cast

from owl3.errors import ConfigError
from owl3.eval.task import Task


def task_names() -> tuple[str, ...]:
    """All names, in alphabetical order: `scenes-single` is `owl3/eval/tasks/scenes_single.py`."""
    files = (entry.name for entry in resources.files("owl3.eval.tasks").iterdir())
    return tuple(sorted(f[:-3].replace("_", "-") for f in files if f.endswith(".py") and not f.startswith("_")))


def find_task(name: str) -> Task:
    """Load the task of that name; `_` and `-` are the same.

    Raises:
        ConfigError: there is none; the nearest names are offered.
    """
    wanted = name.strip().lower().replace("_", "-")
    names = task_names()
    if wanted not in names:
        near = difflib.get_close_matches(wanted, names, n=3) or names
        raise ConfigError(f"unknown task {name!r}; did you mean {' or '.join(near)}?")
    module = import_module(f"owl3.eval.tasks.{wanted.replace('-', '_')}")
    return cast(Task, module.TASK)
