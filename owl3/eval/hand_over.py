"""What a stage's scores say: the curve over its checkpoints, and whether its gates let it go on."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from owl3.errors import CheckFailed, InputError
from owl3.eval import queue
from owl3.eval.gates import Figures, Verdict, judge, parse_gate
from owl3.eval.results import check_errors, read_summary

POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Score:
    """One finished result of a checkpoint.

    `paper` are the paper's scores of the same figure, by model; `interval` is the 95 % one.
    """

    checkpoint: str
    step: int
    title: str
    blind: bool
    primary: str
    figures: Mapping[str, float]
    interval: tuple[float, float] | None
    num_questions: int
    floors: Mapping[str, float | None]
    paper: Mapping[str, float]


def scores(stage_dir: Path) -> list[Score]:
    """Every finished result that a request of this stage asked for, in the order of steps."""
    found = []
    for request in queue.read_requests(stage_dir):
        if not request.is_done(stage_dir):
            continue
        summary = read_summary(request.result_folder(stage_dir))
        interval = summary["interval_95"]
        found.append(
            Score(
                checkpoint=request.checkpoint,
                step=request.step,
                title=request.title,
                blind=request.blind,
                primary=summary["primary"],
                figures=summary["figures"],
                interval=(interval["low"], interval["high"]) if interval else None,
                num_questions=summary["num_questions"],
                floors=summary["floors"],
                paper=summary["paper"],
            )
        )
    return found


def figures_at(stage_dir: Path, checkpoint: str = "end", *, blind: bool = False) -> dict[str, Mapping[str, float]]:
    """title -> figures of one checkpoint; empty where nothing is finished."""
    found = scores(stage_dir)
    return {s.title: s.figures for s in found if s.checkpoint == checkpoint and s.blind == blind}


def judge_stage(gates: Sequence[str], stage_dir: Path, previous_dir: Path | None = None) -> list[Verdict]:
    """What each gate that concerns this stage says of its final weights."""
    previous: Figures = figures_at(previous_dir) if previous_dir is not None else {}
    now, blind = figures_at(stage_dir), figures_at(stage_dir, blind=True)
    parsed = [gate for gate in map(parse_gate, gates) if gate.stage in (None, stage_dir.name)]
    return [judge(gate, now, blind=blind, previous=previous) for gate in parsed]


def check_gates(gates: Sequence[str], stage_dir: Path, previous_dir: Path | None = None) -> list[Verdict]:
    """Let the stage's weights go on, or stop them.

    Raises:
        CheckFailed: naming every gate that failed, with the value and what it had to be.
    """
    verdicts = judge_stage(gates, stage_dir, previous_dir)
    failed = [verdict.line() for verdict in verdicts if verdict.passed is False]
    if failed:
        raise CheckFailed(f"{stage_dir}: not handed on: {'; '.join(failed)}")
    return verdicts


def await_scores(stage_dir: Path, timeout_s: float, max_error_fraction: float = 0.0) -> None:
    """Wait until whoever watches the queue has worked off this stage.

    Raises:
        CheckFailed: an evaluation failed, or more questions than allowed could not be put to the final weights.
        InputError: nobody finished it in time.
    """
    deadline = time.monotonic() + timeout_s
    while waiting := queue.pending(stage_dir):
        for request in waiting:
            reason = queue.failure(stage_dir, request)
            if reason is not None:
                raise CheckFailed(f"{stage_dir}: the evaluation of {request.title} failed: {reason}")
        if time.monotonic() > deadline:
            raise InputError(
                f"{stage_dir}: {len(waiting)} evaluations still pending after {timeout_s:.0f} s; "
                f"run `owl3 eval --drain {stage_dir}`"
            )
        time.sleep(POLL_S)
    for request in queue.read_requests(stage_dir):
        if request.checkpoint == "end":  # it is finished, which does not mean that it is whole
            folder = request.result_folder(stage_dir)
            check_errors(read_summary(folder), max_error_fraction, folder)
