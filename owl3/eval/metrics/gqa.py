"""GQA accuracy: exact match of one short answer, whole and by the question's type.

The official script compares lower-cased answers; LLaVA's conversion strips the full stop first, mPLUG-Owl3 also drops
leading articles and verbs ("is a dog" -> "dog") and reports an EvalAI-normalised figure beside it (facts §4.2).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from owl3.eval.items import Record


def normalise(text: str) -> str:
    """Lower case, without blanks and closing full stop."""
    return text.strip().rstrip(".").lower()


def paper_normalise(text: str) -> str:
    """mPLUG-Owl3's rule: the first clause, after "is", "are", "a", "an", "the", before "of".

    Like the original, it cuts at the letters wherever they stand ("pizza box" -> "box"): a quirk worth knowing.
    """
    text = text.strip().split(".")[0].split(",")[0].split("!")[0].lower()
    for word in ("is ", "are ", "a ", "an ", "the "):
        if word in text:
            text = text.split(word)[1]
    return text.split(" of")[0].strip()


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy; binary (yes or no) and open questions; each structural type."""
    parts: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.score is None:
            continue
        is_binary = record.gold[0].lower() in ("yes", "no")
        parts["accuracy"].append(record.score)
        parts["binary" if is_binary else "open"].append(record.score)
        parts[f"structural_{record.category}"].append(record.score)
    return {name: sum(scores) / len(scores) for name, scores in parts.items()}
