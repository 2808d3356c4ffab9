"""Multiple choice: circular evaluation, and breakdowns that a benchmark's own total is made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from owl3.eval.items import LETTERS, Record


def rotations(options: Sequence[str], answer: int) -> list[tuple[tuple[str, ...], int]]:
    """Every rotation of the options, with where the answer then stands: the passes of circular evaluation.

    Pass k shows the last k options first, as in MMBench, whose server knows the answer of each by its number.
    """
    count = len(options)
    turned = (tuple(options[(i - shift) % count] for i in range(count)) for shift in range(count))
    return [(shown, (answer + shift) % count) for shift, shown in enumerate(turned)]


def option_lines(options: Sequence[str]) -> str:
    """`A. …` one per line."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


def circular(records: Sequence[Record], key: str = "question") -> dict[str, float]:
    """A question counts when all its passes are right; `accuracy` of single passes ("vanilla") stands beside it.

    Args:
        records: Passes; those of one question share `meta[key]`.
        key: What tells questions apart.
    """
    single = [record.score for record in records if record.score is not None]
    if not single:
        return {}
    whole = [record.score or 0.0 for record in whole_questions(records, key)]
    return {"circular_accuracy": sum(whole) / len(whole), "accuracy": sum(single) / len(single)}


def whole_questions(records: Sequence[Record], key: str = "question") -> list[Record]:
    """One record per question, right when all its passes are: what circular accuracy is the mean of."""
    passes: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.score is not None:
            passes[str(record.meta[key])].append(record)
    return [
        replace(group[0], id=name, score=float(min(r.score or 0.0 for r in group) == 1.0))
        for name, group in passes.items()
    ]


def circular_by_category(records: Sequence[Record], key: str = "question") -> dict[str, float]:
    """Circular accuracy of all, then of each category."""
    by_category: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_category[record.category].append(record)
    figures = circular(records, key)
    if len(by_category) > 1:
        for name in sorted(by_category):
            part = circular(by_category[name], key)
            figures |= {f"circular_accuracy_{name}": part["circular_accuracy"]} if part else {}
    return figures


def mean_over_categories(records: Sequence[Record]) -> dict[str, float]:
    """BLINK's and MVBench's total: the mean of the categories' accuracies; `accuracy` over all questions beside it."""
    by_category: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if record.score is not None:
            by_category[record.category].append(record.score)
    if not by_category:
        return {}
    means = {name: sum(scores) / len(scores) for name, scores in sorted(by_category.items())}
    every = [score for scores in by_category.values() for score in scores]
    figures = {"mean_over_categories": sum(means.values()) / len(means), "accuracy": sum(every) / len(every)}
    return figures | {f"accuracy_{name}": mean for name, mean in means.items()}


def accuracy_by_category(records: Sequence[Record]) -> dict[str, float]:
    """Accuracy over all questions, then of each category."""
    figures = mean_over_categories(records)
    figures.pop("mean_over_categories", None)
    return figures


_SEPARATORS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))


def matched_letter(raw: str, options: Sequence[str]) -> str | None:
    """VLMEvalKit's rule without a judge: the only option letter that stands alone, else the only option text inside.

    Returns:
        The letter; "Z" when the answer is a lone Z (a refusal); None when neither rule decides.
    """
    words = raw.translate(_SEPARATORS).split()
    letters = [letter for letter in LETTERS[: len(options)] if letter in words]
    if len(letters) == 1:
        return letters[0]
    if not letters and "Z" in words:
        return "Z"
    said = raw.lower()
    inside = [letter for letter, option in zip(LETTERS, options, strict=False) if option.lower() in said]
    return inside[0] if len(inside) == 1 else None
