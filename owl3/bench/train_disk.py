"""Parts of `owl3 bench train` that meet the disk: checkpoints against plain bytes, and how soon a run goes on."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import torch

from owl3.bench.train_world import RELEASE, bench_recipe, make_world
from owl3.data.plan import make_plan
from owl3.errors import InputError
from owl3.manifest import Parent
from owl3.model.config import Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.planfile import Proof
from owl3.train.checkpoint import Checkpoints, TrainerState, state_reader
from owl3.train.distributed import World
from owl3.train.engine import TorchEngine
from owl3.train.optim import freeze, parameter_groups
from owl3.train.stages import TrainRecipe, stage_folder

_BLOCK = 16 << 20


def checkpoint_rates(folder: Path, layers: int = 8) -> dict[str, float]:
    """Bytes per second of saving and reading back a checkpoint, some 300 MB as a rule, and of the same bytes plainly.

    Saving hashes and reads back every tensor and syncs every file; reading checks every digest. Files come back from
    the page cache, for our way and the plain one alike.
    """
    recipe = bench_recipe("disk", "torch", 1)
    stage = recipe.stages[0]
    width = 48 * layers
    shapes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "vocab_size": 8192}
    model = Owl3ForConditionalGeneration(Owl3Config.preset("tiny", hyper_layers=[1, 2], text_config=shapes))
    freeze(model, stage.trainable)
    world = World(0, 1, 0, torch.device("cpu"))
    engine = TorchEngine(model, parameter_groups(model, stage), stage, world)
    checkpoints = Checkpoints(folder / "checkpoints", world, plan=Parent(kind="plan", name=RELEASE, digest=""), limit=1)
    state = TrainerState(step=1, proof=Proof(plan="", step=1, digest="", every=()))
    began = time.perf_counter()
    path, _ = checkpoints.save(engine, state, keep_in_history=False)
    saved_s = time.perf_counter() - began
    files = [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    began = time.perf_counter()
    assert checkpoints.latest(lambda proof: True) is not None
    engine.load_state(state_reader(path), 1)
    loaded_s = time.perf_counter() - began
    written_s, read_s = _plain(files, folder / "plain.bin")
    shutil.rmtree(folder)
    return {
        "save": size / saved_s,
        "plain write and sync": size / written_s,
        "check and load": size / loaded_s,
        "plain read": size / read_s,
    }


def _plain(files: list[Path], copy: Path) -> tuple[float, float]:
    """Seconds to read all bytes of the files, and to write and sync them."""
    read_s = written_s = 0.0
    with copy.open("wb") as target:
        for file in files:
            with file.open("rb") as source:
                while True:
                    began = time.perf_counter()
                    block = source.read(_BLOCK)
                    read_s += time.perf_counter() - began
                    if not block:
                        break
                    began = time.perf_counter()
                    target.write(block)
                    written_s += time.perf_counter() - began
        began = time.perf_counter()
        target.flush()
        os.fsync(target.fileno())
    return written_s + time.perf_counter() - began, read_s


def resume_seconds(workspace: Path, steps: int) -> float:
    """From the start of a process to the first step after a checkpoint, less what importing alone takes there."""
    make_world(workspace)
    recipe = bench_recipe("resume", "deepspeed", 2 * steps, save_steps=steps, save_total_limit=3)
    make_plan(recipe.stages[0].data, workspace, run_name=recipe.name, stage="pretrain")
    train_in_process(recipe, workspace)
    folder = stage_folder(workspace, recipe.name, "pretrain")
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "checkpoints" / f"step-{2 * steps:06d}")
    before = (folder / "metrics.jsonl").stat().st_ino
    began = time.perf_counter()
    imports = "import owl3.train.run, deepspeed"
    subprocess.run([sys.executable, "-c", imports], check=True, env={**os.environ, "DS_ACCELERATOR": "cpu"})
    imports_s = time.perf_counter() - began
    began = time.perf_counter()
    process = _start(recipe, workspace)
    while process.poll() is None and not _logged(folder / "metrics.jsonl", before, steps):
        time.sleep(0.01)
    first_s = time.perf_counter() - began
    _end(process)
    shutil.rmtree(workspace)
    return first_s - imports_s


def train_in_process(recipe: TrainRecipe, workspace: Path) -> None:
    """Train the recipe's stage, or what is left of it, in a process of its own."""
    _end(_start(recipe, workspace))


def _start(recipe: TrainRecipe, workspace: Path) -> "subprocess.Popen[bytes]":
    path = workspace / f"{recipe.name}.json"
    path.write_text(recipe.model_dump_json(), encoding="utf-8")
    command = ["--recipe", str(path), "--stage", "pretrain", "--workspace", str(workspace)]
    return subprocess.Popen([sys.executable, "-m", "owl3.train", *command])


def _logged(metrics: Path, before: int, steps: int) -> bool:
    """Whether the file was cut back to the checkpoint and has grown since."""
    return metrics.stat().st_ino != before and metrics.read_bytes().count(b"\n") > steps


def _end(process: "subprocess.Popen[bytes]") -> None:
    if process.wait():
        raise InputError(f"training ended with exit code {process.returncode}; its message stands above")
