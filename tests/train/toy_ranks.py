"""What a rank of the toy does: take runs one after another."""

from pathlib import Path
from typing import Any

from owl3.errors import Owl3Error
from owl3.train import distributed
from owl3.train.distributed import World
from owl3.train.loop import train
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
    error = ""
    try:
        state = train(run, state)
    except Owl3Error as caught:
        error = str(caught)
    return {
        "error": error,
        "started_at": started_at,
        "losses": [record["loss"] for record in records],
        "norms": [record["grad_norm"] for record in records],
        "weights": [saved.weights for saved in state.history],
    }


def take_all(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take runs: {"folder", "micro_batches", "stage", "stop_after", "poison"}; return losses, norms and digests."""
    world = distributed.start(timeout_s=60)
    results = [take(settings, world) for settings in runs]
    distributed.stop()
    return results
