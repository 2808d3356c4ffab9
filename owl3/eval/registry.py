"""Which tasks there are: every module of `owl3/eval/tasks/` that does not begin with an underscore."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
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


@dataclass(frozen=True, slots=True)
class Chosen:
    """A task named on the command line and where its files lie."""

    name: str
    title: str
    folder: Path


def choose_tasks(text: str, data: Path) -> list[Chosen]:
    """Read `pope,scenes-multi=heldout/scenes-multi-8`; without a folder a task's files lie in `data`/NAME.

    A folder whose name begins with the task's gives its name to the results.
    """
    chosen = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, folder = part.partition("=")
        task = find_task(name)
        place = Path(folder) if folder else data / task.name
        title = place.name if place.name.startswith(task.name) else task.name
        chosen.append(Chosen(task.name, title, place))
    titles = [one.title for one in chosen]
    if not chosen or len(set(titles)) != len(titles):
        raise ConfigError(f"--tasks {text!r}: name at least one task, and none twice")
    return chosen
