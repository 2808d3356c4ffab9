"""What the shell offers when TAB is pressed: names that are known here, in a recipe, or in the workspace.

`owl3 --install-completion` sets it up. What can't be read offers nothing: a line that is being typed is no place for
an error.
"""

from collections.abc import Callable, Iterable
from pathlib import Path

import typer

from owl3.cli.common import DEFAULT_WORKSPACE
from owl3.errors import Owl3Error

Complete = Callable[[typer.Context, str], list[str]]


def benches(context: typer.Context, incomplete: str) -> list[str]:
    """Benchmarks of `owl3 bench`."""
    from owl3.bench.registry import BENCHES

    return _beginning(BENCHES, incomplete)


def corpora(context: typer.Context, incomplete: str) -> list[str]:
    """Corpora of the catalogue."""
    from owl3.curate.sources.corpus import corpus_names

    return _beginning(corpus_names(), incomplete)


def tools(context: typer.Context, incomplete: str) -> list[str]:
    """Tool environments."""
    from owl3.tools import NAMES

    return _beginning(NAMES, incomplete)


def tasks(context: typer.Context, incomplete: str) -> list[str]:
    """Tasks of `owl3 eval`; several stand behind each other, separated by commas."""
    from owl3.eval.registry import task_names

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in _beginning(task_names(), last)]


def named_in(section: str) -> Complete:
    """Names of a list of the recipe that was typed before: `stages`, `curate`, `build`."""

    def names(context: typer.Context, incomplete: str) -> list[str]:
        from owl3.yamlread import read_yaml

        # An option that still lacks its value keeps typer from sorting the words before it.
        path = context.params.get("recipe") or next(iter(context.args), "")
        try:
            entries = [str(entry["name"]) for entry in read_yaml(Path(path))[section]]
        except (Owl3Error, OSError, KeyError, TypeError):
            return []
        return _beginning(entries, incomplete)

    return names


def folders(pattern: str, *, depth: int = 1) -> Complete:
    """Folders of the workspace that hold a file: `folders("shards/*/manifest.json")`, named by their last parts."""

    def names(context: typer.Context, incomplete: str) -> list[str]:
        workspace = Path(context.params.get("workspace") or DEFAULT_WORKSPACE)
        found = sorted(path.parent for path in workspace.glob(pattern))
        return _beginning(("/".join(folder.parts[-depth:]) for folder in found), incomplete)

    return names


def cards(context: typer.Context, incomplete: str) -> list[str]:
    """Cards that have facts, of the workspace and of the folder where one works."""
    workspace = Path(context.params.get("workspace") or DEFAULT_WORKSPACE)
    given = context.params.get("datacards")
    places = [Path(given)] if given else [workspace / "datacards", Path("datacards")]
    return _beginning(sorted({path.parent.name for place in places for path in place.glob("*/facts.yaml")}), incomplete)


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
