"""NExT-QA multiple choice: accuracy by type of question.

The official script merges TP ("before", "previous") into TN, so "Bef&Aft" is both; C, T and D are the means over
causal, temporal and descriptive questions. Source: the behaviour of doc-doc/NExT-QA's eval_mc.py.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from owl3.eval.items import Record

NAMES = {"CW": "why", "CH": "how", "TN": "before_after", "TC": "when", "DC": "count", "DL": "location", "DO": "other"}
GROUPS = {"C": "causal", "T": "temporal", "D": "descriptive"}


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy of all; causal, temporal, descriptive; then each type."""
    by_type: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.score is not None:
            by_type["TN" if record.category == "TP" else record.category].append(record.score)
    every = [score for scores in by_type.values() for score in scores]
    if not every:
        return {}
    figures = {"accuracy": sum(every) / len(every)}
    for letter, name in GROUPS.items():
        part = [score for kind, scores in by_type.items() if kind.startswith(letter) for score in scores]
        figures |= {f"accuracy_{name}": sum(part) / len(part)} if part else {}
    for kind, name in NAMES.items():
        part = by_type.get(kind, [])
        figures |= {f"accuracy_{name}": sum(part) / len(part)} if part else {}
    return figures
