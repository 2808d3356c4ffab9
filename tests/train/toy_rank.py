"""One rank that trains the toy: `toy_rank.py FOLDER JSON`; rank 0 prints losses and the weights' digest."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from owl3.train import distributed
from owl3.train.loop import train
from train.toy import ToyOrder, toy_run, toy_stage


def main() -> None:
    """Train, and say what came out."""
    folder, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    world = distributed.start(timeout_s=30)
    order = ToyOrder(world.data_rank, world.data_size, settings["micro_batches"], settings.get("poison"))
    stage = toy_stage(**settings["stage"])
    run, state = toy_run(folder, stage, world=world, order=order, total_steps=settings.get("steps", 6))
    losses: list[float] = []
    run.log = lambda record: losses.append(record["loss"])
    state = train(run, state)
    if world.is_main:
        sys.stdout.write(json.dumps({"losses": losses, "weights": [saved.weights for saved in state.history]}) + "\n")
    distributed.stop()


if __name__ == "__main__":
    main()
