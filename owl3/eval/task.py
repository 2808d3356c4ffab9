"""A task: where a benchmark's questions come from, how an answer is read, what it scores, how scores add up.

Each task is one small file in `owl3/eval/tasks/` that ends in `TASK = Task(...)`. Its `version` is part of every
result's key: whatever could change a score (prompt, parser, metric, rule) changes it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from owl3.eval.items import Item, Parsed, Record

Load = Callable[[Path], Sequence[Item]]
Parse = Callable[[Item, str], Parsed]
Score = Callable[[Item, str | None], float | None]
Aggregate = Callable[[Sequence[Record]], Mapping[str, float]]
Submission = Callable[[Sequence[Record]], tuple[str, bytes]]
Units = Callable[[Sequence[Record]], Sequence[Record]]


def mean_score(records: Sequence[Record]) -> dict[str, float]:
    """The mean of the scores there are, under the name `accuracy`."""
    scores = [record.score for record in records if record.score is not None]
    return {"accuracy": sum(scores) / len(scores)} if scores else {}


def exact(item: Item, answer: str | None) -> float | None:
    """1 when the answer is one of the gold answers, else 0; None when a test server holds them."""
    return float(answer in item.answers) if item.answers else None


@dataclass(frozen=True, slots=True)
class Task:
    """One benchmark.

    Attributes:
        name: What a person types.
        version: Changes with anything that could change a score.
        load: Reads the benchmark's own files from a folder.
        parse: Takes the answer out of the model's words.
        score: What one answer is worth, 0 to 1; None when the gold answer is not public.
        aggregate: The figures of a set of records, primary figure first.
        units: What the primary figure is the mean of, where that is not the records as they stand: whole questions of
            circular evaluation, captions weighed by the whole corpus. Intervals and comparisons draw these.
        is_share: The primary figure lies between 0 and 1 (CIDEr goes to 10).
        max_new_tokens: How long an answer may be.
        letters: Options are answered by their letters.
        cut: Pictures are cut into tiles: the released evaluation does so for single-image tasks (facts §4.2).
        paper: What the paper reports, by model, in the unit of the primary figure (0 to 1).
        submission: Makes the file that the benchmark's server takes: (name, bytes).
    """

    name: str
    version: str
    load: Load
    parse: Parse
    score: Score = exact
    aggregate: Aggregate = mean_score
    units: Units | None = None
    is_share: bool = True
    max_new_tokens: int = 100  # the released evaluation's value (facts §4.2)
    letters: bool = False
    cut: bool = False
    paper: Mapping[str, float] = field(default_factory=dict)
    submission: Submission | None = None

    @property
    def about(self) -> str:
        """The first line of its file's docstring."""
        module = sys.modules[f"owl3.eval.tasks.{self.name.replace('-', '_')}"]
        return (module.__doc__ or "").strip().splitlines()[0].partition(": ")[2]

    def record(self, item: Item, raw: str) -> Record:
        """Judge one answer."""
        return self.judged(item, raw, self.parse(item, raw))

    def judged(self, item: Item, raw: str, parsed: Parsed) -> Record:
        """Score an answer that was read already."""
        return Record(
            item.id,
            item.group or item.id,
            item.category,
            item.text(),
            raw,
            parsed.answer,
            parsed.how,
            item.answers,
            self.score(item, parsed.answer),
            meta=item.meta,
        )

    def failure(self, item: Item, error: str) -> Record:
        """Note a question that could not be put."""
        return Record(
            item.id,
            item.group or item.id,
            item.category,
            item.text(),
            "",
            None,
            "failed",
            item.answers,
            None,
            error,
            item.meta,
        )

    def primary(self, figures: Mapping[str, Any]) -> str:
        """The name of the figure that stands for the task."""
        return next(iter(figures), "accuracy")
