"""How long each part of a training step takes: what `phase_seconds` of a record holds.

    load        waiting for the loader
    forward     copying micro-batches to the device, and the forward passes
    backward    the backward passes, and reducing gradients over ranks where the engine does that in them
    exchange    the small exchange between ranks; a rank that was early waits here for the late ones
    optimizer   clipping, the optimizer's step, and gathering what it changed

An accelerator works behind the host's back: there the marks are events in its own queue, so that a phase is as long as
the device was at it, and nothing is waited for until the step is over.
"""

import time
from typing import Literal, get_args

import torch

Phase = Literal["load", "forward", "backward", "exchange", "optimizer"]
PHASES: tuple[Phase, ...] = get_args(Phase)


class StepClock:
    """Marks where the phases of one step begin; a phase may come several times, as micro-batches do."""

    def __init__(self, device: torch.device) -> None:
        self._on_device = device.type == "cuda"
        self._marks: list[tuple[Phase | None, float | torch.cuda.Event]] = []

    def begin(self, phase: Phase) -> None:
        """From now on the step is in this phase."""
        self._marks.append((phase, self._now()))

    def end(self) -> None:
        """The last phase is over."""
        self._marks.append((None, self._now()))

    def seconds(self) -> dict[str, float]:
        """Seconds of every phase, those of its returns added up; waits for the device to reach the last mark."""
        total = dict.fromkeys(PHASES, 0.0)
        for (phase, since), (_, until) in zip(self._marks, self._marks[1:], strict=False):
            if phase is not None:
                total[phase] += _between(since, until)
        return {phase: round(seconds, 6) for phase, seconds in total.items()}

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_device:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between(since: float | torch.cuda.Event, until: float | torch.cuda.Event) -> float:
    if isinstance(since, torch.cuda.Event) and isinstance(until, torch.cuda.Event):
        until.synchronize()
        return since.elapsed_time(until) / 1000
    assert isinstance(since, float) and isinstance(until, float)
    return until - since
