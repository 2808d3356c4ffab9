"""How evenly the ranks of a step share its pictures: what one rank has more than another, all others wait for.

Picture tiles stand for image tokens: every tile is as many. Ranks take whole rows, and as many of them as the others
(one more at most), so a step with few rows can't be shared out evenly at every world size: ranks that have a row less
are idle while the others compute it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from owl3.data.pack import share_rows
from owl3.planfile import Plan

WORLD_SIZES = (2, 4, 8)
TOLERANCE = 0.1
"""Ranks of a step should differ by at most this part of the fullest one."""

IDLE_TOLERANCE = 0.01
"""Ranks that are idle for a smaller part of the time than this are not worth a word."""


@dataclass(frozen=True, slots=True)
class Balance:
    """Over some steps of a plan, at one number of ranks."""

    ranks: int
    steps: int
    """How many were looked at."""
    median: float
    """(fullest rank - emptiest rank) / fullest rank, of the step in the middle."""
    worst: float
    worst_step: int
    within: float
    """Share of the steps in which it is at most `TOLERANCE`."""
    idle: float
    """Part of all ranks' time in which they have no row left while others do; of all steps."""


def rank_balance(plan: Plan, world_sizes: Sequence[int] = WORLD_SIZES, max_steps: int = 500) -> list[Balance]:
    """Share out steps as the loader does and compare ranks.

    Args:
        max_steps: Look at so many steps, evenly over the plan; the figures are of those.
    """
    numbers = np.unique(np.linspace(0, plan.num_steps - 1, min(max_steps, plan.num_steps)).astype(int)).tolist()
    tiles_of = [plan.row_tiles(step) for step in numbers]
    found = []
    for ranks in world_sizes:
        gaps = np.array([rank_gap([int(t[rows].sum()) for rows in share_rows(t, ranks)]) for t in tiles_of])
        worst = int(gaps.argmax())
        found.append(
            Balance(
                ranks=ranks,
                steps=len(numbers),
                median=round(float(np.median(gaps)), 4),
                worst=round(float(gaps[worst]), 4),
                worst_step=numbers[worst],
                within=round(float((gaps <= TOLERANCE).mean()), 4),
                idle=round(idle_share(plan, ranks), 4),
            )
        )
    return found


def rank_gap(loads: Sequence[int]) -> float:
    """How much emptier the emptiest rank is than the fullest: 0 alike, 1 nothing."""
    return 1 - min(loads) / max(loads) if max(loads) else 0.0


def idle_share(plan: Plan, ranks: int) -> float:
    """Part of all ranks' time in which they have no row left while others do, were all rows equally long: 0 to 1."""
    rows = _rows_per_step(plan)
    return 1 - float(rows.sum() / (ranks * -(-rows // ranks)).sum())


def idle_warning(plan: Plan, ranks: int) -> str | None:
    """Say how much of a step is lost because its rows do not divide by the data-parallel ranks, and which key mends it.

    Returns:
        One line; None where less than `IDLE_TOLERANCE` is lost.
    """
    share = idle_share(plan, ranks)
    if share < IDLE_TOLERANCE:
        return None
    rows, batch = _rows_per_step(plan), plan.global_batch_size
    if batch < ranks:
        mend = f"raise data.global_batch_size {batch} or use at most {batch} ranks"
    elif int(rows.min()) == batch:
        mend = f"each sample has a row of its own: make data.global_batch_size {batch} a multiple of {ranks}"
    else:
        mend = f"set data.rows_multiple to {ranks} (or a multiple of it) and plan again"
    return (
        f"{plan.folder}: {ranks} data-parallel ranks are idle for {share:.1%} of a step: "
        f"it holds {int(np.median(rows))} rows (median), which {ranks} does not divide; {mend}"
    )


def _rows_per_step(plan: Plan) -> npt.NDArray[np.int64]:
    edges = np.append(plan.steps["first_row"], len(plan.row_costs)).astype(np.int64)
    return np.asarray(edges[1:] - edges[:-1])
