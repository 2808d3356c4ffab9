"""What a rank of the toy does: take runs one after another."""

import math
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from owl3.errors import InputError, Owl3Error
from owl3.train import distributed, engine
from owl3.train.distributed import World
from owl3.train.export import tensor_digest
from owl3.train.loop import train
from owl3.train.validation import validation_losses
from owl3.train.watch import train_watched
from train.toy import ToyOrder, toy_run, toy_stage


def take(settings: dict[str, Any], world: World) -> dict[str, Any]:
    """Train one toy, from its last checkpoint on."""
    order = ToyOrder(world.data_rank, world.data_size, settings["micro_batches"], settings.get("poison"))
    stage = toy_stage(**settings["stage"])
    run, state = toy_run(Path(settings["folder"]), stage, world=world, order=order)
    records: list[Any] = []
    run.log = records.append
    started_at = state.step
    run.stop_wanted = lambda: len(records) + 1 == settings.get("stop_after")
    if world.rank == settings.get("bad_rank"):
        run.groups[0].parameters[0].register_hook(lambda grad: grad * math.nan if len(records) == 3 else grad)
    error = ""
    try:
        state = train(run, state)
    except Owl3Error as caught:
        error = str(caught)
    held_out = {"toy": lambda: iter([order.step(100), order.step(101)])}
    return {
        "validation": None if error else validation_losses(run.engine, world, held_out)["validation_loss"],
        "error": error,
        "started_at": started_at,
        "losses": [record["loss"] for record in records],
        "norms": [record["grad_norm"] for record in records],
        "scales": [record.get("loss_scale") for record in records],
        "redone": [record.get("redone") for record in records],
        "state": {name: tensor_digest(tensor) for name, tensor in run.engine.state()},
        "weights": [saved.weights for saved in state.history],
        "averages": {name: float(tensor.abs().sum()) for name, tensor in run.engine.weights(averaged=True)},
    }


def pretend_fp16() -> None:
    """Let this process compute in fp16 on any CPU: torch can, only slowly. Not to be undone."""
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    CPU_Accelerator.is_fp16_supported = lambda self: True
    engine._cpu_has_fp16 = lambda: True


def take_all(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take runs: {"folder", "micro_batches", "stage", "stop_after", "poison", "bad_rank"}; return losses and digests.

    `bad_rank` is one whose gradient is not a number in step 3, though its loss is one.
    """
    if any(settings["stage"].get("precision") == "fp16" for settings in runs):
        pretend_fp16()
    world = distributed.start(timeout_s=60)
    results = [take(settings, world) for settings in runs]
    distributed.stop()
    return results


def consolidate(folder: Path) -> dict[str, set[str]]:
    """Which tensors hold exactly what was trained, or was frozen, in our model file and in DeepSpeed's own."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    world = distributed.start(timeout_s=60)
    run, state = toy_run(folder, toy_stage(engine="deepspeed"), world=world, total_steps=2)
    train(run, state)
    run.engine._engine.save_checkpoint(folder / "deepspeed")  # type: ignore[attr-defined]
    live = dict(run.engine.weights())
    written = {
        "all": live,
        "ours": load_file(run.checkpoints.path(2) / "model" / "model.safetensors"),
        "theirs": get_fp32_state_dict_from_zero_checkpoint(folder / "deepspeed"),
    }
    distributed.stop()
    return {
        who: {name for name, tensor in tensors.items() if torch.equal(tensor, live[name])}
        for who, tensors in written.items()
    }


def _fail() -> None:
    raise InputError("shard 00007.tar: damaged")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _stall() -> None:
    time.sleep(3600)


def take_with_trouble(folder: Path, trouble: str, deadline_s: float = 60.0) -> str:
    """Rank 1 gets into trouble while it loads step 3; return the error that this rank ends with."""
    world = distributed.start(timeout_s=60)
    order = ToyOrder(world.data_rank, world.data_size)
    if world.rank == 1:
        order.trouble[3] = {"fail": _fail, "die": _die, "stall": _stall}[trouble]
    run, state = toy_run(folder, world=world, order=order)
    try:
        train_watched(run, state, deadline_s)
    except Owl3Error as error:
        return str(error)
    return "no error"
