"""Plans for what is held out of training: a slice of each data set, on which validation loss is measured."""

import shutil
from pathlib import Path

from owl3.data.mixture import MixtureConfig
from owl3.data.plan import PlanConfig, make_plan_in, usable_samples
from owl3.errors import ConfigError, StaleError

_SAMPLES_PER_STEP = 8


def make_held_out_plans(config: PlanConfig, workspace: Path, folder: Path, *, samples: int) -> dict[str, Path]:
    """Plan one pass over the held-out slice of each data set of a stage.

    Args:
        config: The stage's plan; `held_out` says how much of each data set it never draws.
        folder: Gets one plan per data set. A plan there that no longer fits is made anew: it is a look at the data,
            nothing that was trained on.
        samples: At most so many of each data set, chosen by the seed; a last step that is not full is left out.

    Returns:
        The plans' folders by data set, in the mixture's order.

    Raises:
        ConfigError: a data set has no held-out sample.
    """
    plans = {}
    for dataset in config.mixture.datasets:
        alone = dataset.model_copy(update={"weight": None, "max_samples": samples, "max_epochs": None})
        changes = {"mixture": MixtureConfig(datasets=(alone,)), "slice": "held_out", "rows_multiple": 1}
        slice_config = config.model_copy(update=changes)
        [count] = usable_samples(slice_config, workspace)
        if count == 0:
            raise ConfigError(
                f"data set {dataset.name!r}: held_out {config.held_out:g} leaves no sample to measure validation loss "
                "on; raise it, or build more samples"
            )
        batch = min(count, _SAMPLES_PER_STEP)
        sizes = {"global_batch_size": batch, "steps": count // batch, "epochs": None}
        slice_config = slice_config.model_copy(update=sizes)
        target = folder / dataset.name
        try:
            make_plan_in(target, slice_config, workspace, name=f"held-out/{dataset.name}")
        except StaleError:
            shutil.rmtree(target)
            make_plan_in(target, slice_config, workspace, name=f"held-out/{dataset.name}")
        plans[dataset.name] = target
    return plans
