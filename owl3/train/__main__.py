"""The training process: `python -m owl3.train --recipe RESOLVED.json --stage S --workspace W`.

One process needs no launcher; several are started by torchrun, deepspeed or srun with the same arguments. Ends with
0 done, 1 a check failed (loss not finite), 2 wrong recipe or input, 3 stopped and resumable.
"""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from owl3.errors import exit_code_of
from owl3.train.torchrun import end_with_launcher


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, run the stage, and turn errors into one line and an exit code."""
    options = _parser().parse_args(arguments)
    end_with_launcher(os.environ)
    rank = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))
    logging.basicConfig(
        level=logging.WARNING, stream=sys.stderr, format=f"%(levelname)s [rank {rank}] %(name)s: %(message)s"
    )
    return exit_code_of(lambda: _run(options), f"owl3 train [rank {rank}]")


def _run(options: argparse.Namespace) -> None:
    from owl3.train.options import read_options
    from owl3.train.stages import load_recipe

    recipe = load_recipe(options.recipe)
    recipe.stage(options.stage)
    deepspeed_options = read_options(options.deepspeed_json)

    # torch takes seconds to import: what is wrong with the recipe has been said by now.
    from transformers.utils.logging import disable_progress_bar

    from owl3.train.run import Where, preflight_stage, run_stage

    disable_progress_bar()  # of loading and saving: a line per checkpoint is enough
    where = Where(
        workspace=options.workspace,
        deepspeed_options=deepspeed_options,
        grace_s=options.grace,
        timeout_s=options.timeout,
        report_to=tuple(options.report_to),
    )
    (preflight_stage if options.preflight else run_stage)(recipe, options.stage, where)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m owl3.train", description=__doc__)
    parser.add_argument("--recipe", type=Path, required=True, help="resolved recipe (JSON or YAML)")
    parser.add_argument("--stage", required=True)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--deepspeed-json", type=Path, help="memory and communication settings (infra/deepspeed/)")
    parser.add_argument("--preflight", action="store_true", help="only try the stage out, and write preflight.json")
    parser.add_argument("--grace", type=float, default=30.0, help="seconds that SIGTERM leaves for saving")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds after which a missing rank is an error")
    parser.add_argument("--report-to", action="append", default=[], help="tensorboard, wandb or mlflow")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    return parser


if __name__ == "__main__":
    sys.exit(main())
