"""`python -m owl3.train.publish`: copy a stage's verified export out of the workspace, with its model card."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from owl3.errors import InputError, exit_code_of
from owl3.storage import atomic_folder, write_atomic
from owl3.train.card import model_card
from owl3.train.export import digests_on_disk, verified_model, weights_digest
from owl3.train.stages import stage_folder


def publish(workspace: Path, run: str, stage: str, target: Path) -> str:
    """Copy the model folder after checking every byte of it, and every tensor of the copy.

    Returns:
        The weights' digest.

    Raises:
        InputError: the export is not what the stage trained, or `target` exists.
    """
    model, manifest = verified_model(stage_folder(workspace, run, stage))
    with atomic_folder(target) as aside:
        shutil.copytree(model, aside, dirs_exist_ok=True)
        digest = weights_digest(digests_on_disk(aside))
        if digest != manifest.stats["weights"]:
            raise InputError(f"{target}: the copy's tensors are not those that were trained; is the disk sound?")
        write_atomic(aside / "README.md", model_card(workspace, run, stage).encode())
    return digest


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, copy, and turn errors into one line and an exit code."""
    parser = argparse.ArgumentParser(prog="python -m owl3.train.publish", description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--stage", required=True)
    parser.add_argument("--to", type=Path, required=True)
    options = parser.parse_args(arguments)

    def run() -> None:
        publish(options.workspace, options.run, options.stage, options.to)

    return exit_code_of(run, "owl3 export")


if __name__ == "__main__":
    sys.exit(main())
