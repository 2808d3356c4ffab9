"""Which tasks there are: every module of `owl3/eval/tasks/` that does not begin with an underscore."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module, resources
from pathlib import Path
from typing import cast

from owl3.errors import ConfigError, InputError
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
        near = difflib.get_close_matches(wanted, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"owl3 eval --list shows all {len(names)}"
        raise ConfigError(f"unknown task {name!r}; {hint}")
    module = import_module(f"owl3.eval.tasks.{wanted.replace('-', '_')}")
    return cast(Task, module.TASK)


HUB = "hf:"


def from_hub(name: str) -> Path:
    """Fetch a data set `OWNER/NAME[@REVISION]` of the Hugging Face hub; its files lie as they were published.

    Raises:
        InputError: there is no such data set, or the hub can't be reached and the cache does not hold it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision or None))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise InputError(f"{HUB}{name}: can't be fetched: {' '.join(str(error).split())[:200]}") from error


@dataclass(frozen=True, slots=True)
class Chosen:
    """A task named on the command line and where its files lie."""

    name: str
    title: str
    folder: Path


def choose_tasks(text: str, data: Path, *, fetch: bool = True) -> list[Chosen]:
    """Read `pope,scenes-multi=heldout/scenes-multi-8`; without a folder a task's files lie in `data`/NAME.

    A folder whose name begins with the task's gives its name to the results. `pope=hf:OWNER/NAME[@REVISION]` takes a
    data set of the Hugging Face hub (from its cache, where it is there already); not with `fetch` off, for a dry run.
    """
    chosen = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, folder = part.partition("=")
        task = find_task(name)
        if folder.startswith(HUB):
            place = from_hub(folder.removeprefix(HUB)) if fetch else Path(folder)
            chosen.append(Chosen(task.name, task.name, place))
            continue
        place = Path(folder) if folder else data / task.name
        title = place.name if place.name.startswith(task.name) else task.name
        chosen.append(Chosen(task.name, title, place))
    if not chosen:
        raise ConfigError("give --tasks NAME[=FOLDER],…; owl3 eval --list names them")
    titles = [one.title for one in chosen]
    twice = next((title for title in titles if titles.count(title) > 1), None)
    if twice:
        raise ConfigError(f"--tasks: two results would be called {twice}; give their folders names that begin so")
    return chosen
