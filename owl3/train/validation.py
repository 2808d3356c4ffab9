"""Loss on samples that no stage trains on, of each data set apart."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from owl3.train.distributed import World
from owl3.train.engine import Engine
from owl3.train.steps import Row, Step, rows_of

HeldOut = Mapping[str, Callable[[], Iterator[Step]]]
"""This rank's share of the held-out steps of each data set, from the first on."""


def validation_losses(
    engine: Engine, world: World, held_out: HeldOut, watch: Callable[[Sequence[Row]], None] = lambda rows: None
) -> dict[str, Any]:
    """Measure. Collective; leaves weights and gradients alone.

    Args:
        watch: Is told the rows of each micro-batch before it is computed.

    Returns:
        `validation`: loss per trained token by data set; `validation_loss`: of all their tokens together.
    """
    sums: list[float] = []
    tokens: list[float] = []
    for steps in held_out.values():
        watch(())  # its workers start
        losses = []
        tokens.append(0.0)
        for step in steps():
            for batch in step.micro_batches:
                watch(rows_of(batch))
                loss = engine.evaluate(batch.to(world.device, engine.dtype), step.trained_tokens)
                losses.append(float(loss) * step.trained_tokens)
                tokens[-1] += batch.trained_tokens  # not those planned: a sample that was left out has no loss
        sums.append(math.fsum(losses))
    # Tensor-parallel peers compute the same rows.
    totals = [total / world.tensor_parallel for total in world.sum([*sums, *tokens])]
    sums, tokens = totals[: len(sums)], totals[len(sums) :]
    by_set = {name: _mean(total, count) for name, total, count in zip(held_out, sums, tokens, strict=True)}
    return {"validation_loss": _mean(math.fsum(sums), sum(tokens)), "validation": by_set}


def _mean(total: float, count: float) -> float:
    """Not a number where every sample was left out."""
    return total / count if count else math.nan
