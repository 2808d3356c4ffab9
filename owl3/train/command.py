"""The command line that trains a stage, under any launcher. No torch: processes are started from here."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Launcher = Literal["torchrun", "deepspeed", "srun"]
TRACKERS = ("tensorboard", "wandb", "mlflow")

MODULE = "owl3.train"
TORCHRUN = "owl3.train.torchrun"


@dataclass(frozen=True)
class TrainCommand:
    """A stage to be trained, and how. `where` settings change no result."""

    recipe: Path  # resolved
    stage: str
    workspace: Path
    processes: int = 1
    deepspeed_json: Path | None = None
    grace_s: float = 30.0
    timeout_s: float = 600.0
    preflight: bool = False
    report_to: tuple[str, ...] = ()

    def arguments(self) -> list[str]:
        """What every rank gets."""
        made = ["--recipe", str(self.recipe), "--stage", self.stage, "--workspace", str(self.workspace)]
        if self.deepspeed_json is not None:
            made += ["--deepspeed-json", str(self.deepspeed_json)]
        for tracker in self.report_to:
            made += ["--report-to", tracker]
        if self.preflight:
            made += ["--preflight"]
        return [*made, "--grace", f"{self.grace_s:g}", "--timeout", f"{self.timeout_s:g}"]

    def on_this_machine(self) -> tuple[str, list[str]]:
        """A module and its arguments for `owl3.launch.run_module`: one process needs no launcher."""
        if self.processes == 1:
            return MODULE, self.arguments()
        launch = ["--standalone", "--nproc-per-node", str(self.processes), "--monitor-interval", "0.2"]
        launch += ["--shutdown-timeout", str(math.ceil(self.grace_s) + 5), "--module", MODULE]  # ranks give up first
        return TORCHRUN, [*launch, *self.arguments()]

    def under(self, launcher: Launcher) -> Sequence[str]:
        """The whole command for a launcher of your own."""
        ranks = str(self.processes)
        if launcher == "torchrun":
            return ["torchrun", "--standalone", "--nproc-per-node", ranks, "--module", MODULE, *self.arguments()]
        if launcher == "deepspeed":
            return ["deepspeed", "--num_accelerators", ranks, "--module", MODULE, *self.arguments()]
        return ["srun", "--ntasks", ranks, sys.executable, "-m", MODULE, *self.arguments()]
