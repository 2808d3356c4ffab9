"""A run of curation at full scale, shard by shard: how long is the tail, and what are failures worth?

Discrete events over shards and machines. Each machine takes the next shard, works on it for a drawn time, and now and
then is lost or taken away; a lost shard goes back to the head of the queue with the rows that its journal holds, so
that only what was under way is done again. Politeness is simulated apart: the most frequent host can be asked only so
fast, and its last URL sets a floor under the whole run that no machine lifts.
"""

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from owl3.config import Config

Seconds = NDArray[np.float64]

_KEEPS = 0.99
"""Share of a lost shard's finished rows that its journal gives back: all but those under way."""


@dataclass(frozen=True)
class Run:
    """What is simulated. Times in seconds."""

    shards: int
    machines: int
    slots: int
    """Shards under way on one machine."""
    shard_s: float
    """Mean time of a shard in its slot."""
    spread: float
    """Standard deviation of the logarithm of a shard's time."""
    tail_s: float
    """Deadline of a URL: no shard ends before its last stalled row has run into it."""
    shard_failure: float
    losses_per_s: float
    """Of one machine: failures and preemptions."""
    restart_s: float


class Course(Config):
    """How one simulated run went. Times in hours."""

    hours: float
    ideal_hours: float
    """The same work without failures, stragglers or tail."""
    hours_to_95: float
    """Until 95 % of the shards were done."""
    tail_hours: float
    """From there to the last one."""
    tail_1_hours: float
    """From 99 % of the shards to the last one."""
    lost_machines: int
    failed_shards: int
    redone_share: float
    """Work that was done twice, as a share of all work."""


def simulate(run: Run, seed: int = 0) -> Course:
    """Play a run through once."""
    dice = np.random.default_rng(seed)
    noise = dice.lognormal(-(run.spread**2) / 2, run.spread, run.shards)
    work = run.shard_s * noise
    fails = dice.random(run.shards) < run.shard_failure
    losses = _losses(run, float(work.sum()), dice)
    slots = [(0.0, machine) for machine in range(run.machines) for _ in range(run.slots)]
    heapq.heapify(slots)
    waiting: list[tuple[float, float, int]] = []  # shards to do again: from when on, work left, number
    ends = np.empty(run.shards)
    following, done, redone = 0, 0, 0.0
    lost: set[tuple[int, float]] = set()
    while done < run.shards:
        now, machine = heapq.heappop(slots)
        if waiting and (waiting[0][0] <= now or following == run.shards):
            ready, left, shard = heapq.heappop(waiting)
            now = max(now, ready)
        elif following < run.shards:
            shard, left = following, float(work[following])
            following += 1
            if fails[shard]:  # somewhere on its way the engine ends; the shard is done again by whoever is free
                share = float(dice.random())
                at = now + share * left
                redone += share * left * (1 - _KEEPS)
                heapq.heappush(waiting, (at, left * (1 - share * _KEEPS), shard))
                heapq.heappush(slots, (at, machine))
                continue
        else:
            continue  # nothing left to give out: this slot stays idle while others finish
        end = now + left + run.tail_s
        loss = _first_between(losses[machine], now, end)
        if loss is not None:
            lost.add((machine, loss))
            redone += (loss - now) * (1 - _KEEPS)
            heapq.heappush(waiting, (loss, left - min(left, (loss - now)) * _KEEPS, shard))
            heapq.heappush(slots, (loss + run.restart_s, machine))
            continue
        ends[shard] = end
        done += 1
        heapq.heappush(slots, (end, machine))
    ends.sort()
    total = float(work.sum())
    last, at_95, at_99 = (float(ends[int(share * (run.shards - 1))]) for share in (1.0, 0.95, 0.99))
    return Course(
        hours=last / 3600,
        ideal_hours=total / (run.machines * run.slots) / 3600,
        hours_to_95=at_95 / 3600,
        tail_hours=(last - at_95) / 3600,
        tail_1_hours=(last - at_99) / 3600,
        lost_machines=len(lost),
        failed_shards=int(fails.sum()),
        redone_share=redone / total,
    )


def _losses(run: Run, work_s: float, dice: np.random.Generator) -> list[Seconds]:
    """When each machine is lost: a Poisson process over thrice the time the work should take, and the restarts."""
    if run.losses_per_s == 0:
        return [np.empty(0) for _ in range(run.machines)]
    horizon = 3 * work_s / (run.machines * run.slots) + 100 * (run.restart_s + run.tail_s) + run.shard_s
    count = int(horizon * run.losses_per_s * 2) + 10
    return [np.cumsum(dice.exponential(1 / run.losses_per_s, count)) for _ in range(run.machines)]


def _first_between(times: Seconds, start: float, end: float) -> float | None:
    index = int(np.searchsorted(times, start))
    return float(times[index]) if index < len(times) and times[index] < end else None
