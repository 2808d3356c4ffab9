"""The process that `owl3 bench NAME` starts: `python -m owl3.bench NAME --out FOLDER [KEY=VALUE …]`."""

import argparse
import importlib
import inspect
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from owl3.bench.registry import BENCHES
from owl3.errors import ConfigError, exit_code_of
from owl3.yamlread import parse_yaml


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; the last line of stdout is its result as one JSON object."""
    parser = argparse.ArgumentParser(prog="owl3 bench")
    parser.add_argument("name", choices=sorted(BENCHES))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_intermixed_args(arguments)  # options stand between the positionals
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # torch's profiler greets on stderr, each time
    return exit_code_of(lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    settings = dict(_setting(text) for text in options.settings)
    options.out.mkdir(parents=True, exist_ok=True)
    run = importlib.import_module(BENCHES[options.name].module).run
    _, *known = inspect.signature(run).parameters  # the first is where tables go
    unknown = next((name for name in settings if name not in known), None)
    if unknown is not None:
        raise ConfigError(f"bench {options.name}: no setting {unknown!r}; there are: {', '.join(known)}")
    result = run(options.out, **settings)
    sys.stdout.write(json.dumps(result) + "\n")


def _setting(text: str) -> tuple[str, object]:
    key, separator, value = text.partition("=")
    if not separator:
        raise ConfigError(f"{text!r} is not KEY=VALUE")
    return key, parse_yaml(value, text)


if __name__ == "__main__":
    sys.exit(main())
