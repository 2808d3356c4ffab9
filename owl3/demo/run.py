"""`owl3 demo` and `owl3 run`: a recipe's whole chain, and a short account of what came out of it.

What the account holds is read back from the workspace, so a second run that finds everything done gives the same one.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from owl3.cards.runs import all_evaluations
from owl3.cards.subjects import understand
from owl3.cards.trace import Trace, trace
from owl3.config import Config
from owl3.demo.world import corpus_folder, served
from owl3.errors import CheckFailed
from owl3.manifest import Counts
from owl3.pipeline import Outcome, Place, digests, run_chain
from owl3.progress import SILENT, Progress
from owl3.recipe import Recipe
from owl3.report.build import build_report


class Score(Config):
    """How a task ended: with the pictures, and without them."""

    metric: str
    """The task's primary figure: accuracy, cider, f1 …"""
    score: float
    blind: float | None
    random: float | None
    """What guessing would reach."""
    questions: int


@dataclass(frozen=True)
class Account:
    """What a chain did and left.

    Attributes:
        seconds: Wall-clock time of this run.
        steps: One outcome per step, in order.
        digests: By artifact folder, relative to the workspace.
        scores: Of the last stage's final weights, by task.
        curve: Scores by stage and checkpoint, in order of training: (stage, checkpoint, task, score).
        traced: One URL of the corpus, followed to the checkpoints that saw it; None when there is no corpus section.
        report: The page to open.
    """

    seconds: float
    steps: list[Outcome]
    digests: dict[str, str]
    scores: dict[str, Score]
    curve: list[tuple[str, str, str, float]]
    traced: Trace | None
    report: Path

    def to_dict(self) -> dict[str, Any]:
        """The account as `--json` prints it."""
        return {
            "seconds": self.seconds,
            "steps": {outcome.step: outcome.seconds for outcome in self.steps},
            "digests": self.digests,
            "counts": {outcome.artifact: outcome.counts for outcome in self.steps if outcome.artifact},
            "eval": self.scores,
            "curve": self.curve,
            "trace": _trace_summary(self.traced) if self.traced else None,
            "report": str(self.report),
        }


def run(recipe: Recipe, workspace: Path, progress: Progress = SILENT, processes: int = 1) -> Account:
    """Run a recipe's chain in `workspace` and tell what came out.

    Raises:
        Owl3Error: from the step that could not be taken; running again goes on there.
        CheckFailed: the chain ran, and a count is not what the generated corpus must give.
    """
    began = time.monotonic()
    with served(recipe, workspace) as resolve:
        place = Place(workspace, workspace / "datacards", resolve, processes)
        outcomes = run_chain(recipe, place, progress)
    check_expected(workspace, {outcome.artifact: outcome.counts for outcome in outcomes})
    progress.start("report")
    report = build_report(workspace, place.datacards, workspace / "report")
    progress.finish(str(report))
    stage = recipe.stages[-1].name if recipe.stages else ""
    return Account(
        seconds=round(time.monotonic() - began, 1),
        steps=outcomes,
        digests=digests(workspace),
        scores=final_scores(workspace / "runs" / recipe.name / stage),
        curve=[point for entry in recipe.stages for point in _curve(workspace / "runs" / recipe.name / entry.name)],
        traced=_trace_one(recipe, workspace, place.datacards),
        report=report,
    )


def final_scores(stage: Path) -> dict[str, Score]:
    """Scores of a stage's final weights, by task, with the blind run beside where one was made."""
    ended = [result for result in all_evaluations(stage) if result.checkpoint == "end"]
    blind = {result.title: result.score for result in ended if result.blind}
    return {
        result.title: Score(
            metric=result.primary,
            score=result.score,
            blind=blind.get(result.title),
            random=result.random,
            questions=result.num_questions,
        )
        for result in ended
        if not result.blind and result.score is not None
    }


def check_expected(workspace: Path, found: dict[str, Counts]) -> None:
    """Compare the counts of a generated corpus's artifacts with those its fault schedule must give.

    Raises:
        CheckFailed: naming the artifact and both counts.
    """
    path = corpus_folder(workspace) / "expected.json"
    if not path.is_file():
        return
    for artifact, wanted in json.loads(path.read_text(encoding="utf-8")).items():
        counts = found.get(artifact)
        if counts is not None and counts.model_dump() != wanted:
            raise CheckFailed(f"{artifact}: counted {counts.model_dump()}, the fault schedule gives {wanted}")


def _curve(stage: Path) -> list[tuple[str, str, str, float]]:
    results = [result for result in all_evaluations(stage) if not result.blind and result.score is not None]
    results.sort(key=lambda result: (result.title, result.checkpoint == "end", result.checkpoint))
    return [(stage.name, result.checkpoint, result.title, result.score or 0.0) for result in results]


def _trace_one(recipe: Recipe, workspace: Path, datacards: Path) -> Trace | None:
    """Follow one picture of a conversation from its URL to the checkpoints that saw it."""
    conversations = corpus_folder(workspace) / "instruct" / "scenes.json"
    if recipe.corpus is None or not conversations.is_file():
        return None
    first = json.loads(conversations.read_text(encoding="utf-8"))[0]
    return trace(workspace, understand(first["image"]), datacards)


def _trace_summary(found: Trace) -> dict[str, Any]:
    return {
        "subject": found.subject.text,
        "built": found.built_total,
        "plans": {hit.plan: len(hit.steps) for hit in found.plans},
        "checkpoints": [asdict(hit.checkpoint) for hit in found.checkpoints],
        "evaluations": len(found.evaluations),
        "cards": found.cards,
    }
