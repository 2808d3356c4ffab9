"""POPE: does the model see objects that are not there? Accuracy, precision, recall and F1 of "yes".

The official reading: only the text before the first full stop counts, commas are dropped, and it says "no" when one of
its words is "No", "not" or "no"; everything else is "yes".
Source: the behaviour of AoiDragon/POPE's evaluate.py and LLaVA's eval_pope.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from owl3.eval.items import Record


def official_answer(raw: str) -> str:
    """Read an answer by the official rule, which never fails."""
    first = raw.split(".", maxsplit=1)[0].replace(",", "")
    return "no" if {"No", "not", "no"} & set(first.split(" ")) else "yes"


def confusion(said: Sequence[str], truth: Sequence[str]) -> dict[str, int]:
    """TP, FP, TN and FN of "yes"."""
    pairs = list(zip(said, truth, strict=True))
    return {
        "TP": pairs.count(("yes", "yes")),
        "FP": pairs.count(("yes", "no")),
        "TN": pairs.count(("no", "no")),
        "FN": pairs.count(("no", "yes")),
    }


def scores(counts: dict[str, int]) -> dict[str, float]:
    """F1 first: the paper's figure. A figure without any case is 0, as when a model never says yes."""
    tp, fp, tn, fn = counts["TP"], counts["FP"], counts["TN"], counts["FN"]
    total = tp + fp + tn + fn
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    accuracy = (tp + tn) / total if total else 0.0
    yes_ratio = (tp + fp) / total if total else 0.0
    return {"f1": f1, "accuracy": accuracy, "precision": precision, "recall": recall, "yes_ratio": yes_ratio}


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """The five figures averaged over the splits that are there, then F1 and accuracy of each split."""
    splits: dict[str, list[Record]] = {}
    for record in records:
        if record.score is not None:
            splits.setdefault(record.category, []).append(record)
    parts = {
        name: scores(confusion([r.answer or "yes" for r in members], [r.gold[0] for r in members]))
        for name, members in splits.items()
    }
    if not parts:
        return {}
    figures = {name: sum(part[name] for part in parts.values()) / len(parts) for name in next(iter(parts.values()))}
    if len(parts) > 1:
        figures |= {f"{name}_{split}": part[name] for split, part in parts.items() for name in ("f1", "accuracy")}
    return figures
