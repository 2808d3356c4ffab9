"""NLVR2: accuracy, and consistency: the share of sentences that are judged right with every pair of pictures.

A sentence is the identifier without its third part: `dev-850-0-0` and `dev-850-3-0` are one sentence, two pairs.
Source: the behaviour of lil-lab/nlvr's metrics.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from owl3.eval.items import Record


def sentence_of(identifier: str) -> str:
    """`dev-850-3-0` -> `dev-850-0`: split, sentence number and its writing."""
    split, number, _, writing = identifier.rsplit("-", 3)
    return f"{split}-{number}-{writing}"


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy and consistency."""
    by_sentence: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.score is not None:
            by_sentence[sentence_of(record.id)].append(record.score)
    every = [score for scores in by_sentence.values() for score in scores]
    if not every:
        return {}
    consistent = [float(min(scores) == 1.0) for scores in by_sentence.values()]
    return {"accuracy": sum(every) / len(every), "consistency": sum(consistent) / len(consistent)}
