"""Answers that no rule can score go to a judge: a person's own function, a served model, anything that can be called.

    owl3 judge evals/mmvet-5e6f01 --by my_judges.gpt4:grade

    def grade(query: Query) -> float: …        0 (wrong) to 1 (right), as MM-Vet's GPT-4 gives it

A judge is slow and costs money: every verdict is on the disk as soon as it is given, and asked for once. What was
answered is not touched: verdicts lie beside it, under a folder of the judge's name.

    evals/mmvet-5e6f01/judged-my_judges.gpt4-grade/
        verdicts.jsonl     {"id": …, "score": 0.5}, in the order of the questions
        summary.json       the mean, its interval, and the mean of each capability
        manifest.json      kind "eval", parent: the result that was judged
"""

from __future__ import annotations

import importlib
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from owl3.errors import ConfigError, InputError
from owl3.eval.items import Record
from owl3.eval.results import AnswerLog, read_records
from owl3.eval.stats import mean_interval
from owl3.manifest import Counts, now, read_manifest, write_manifest
from owl3.progress import SILENT, Progress
from owl3.storage import read_json, write_atomic

DIGITS = 6


@dataclass(frozen=True, slots=True)
class Query:
    """What a judge is asked: `gold` as the benchmark writes it (MM-Vet joins alternatives by <OR>, parts by <AND>)."""

    id: str
    question: str
    gold: str
    answer: str


Judge = Callable[[Query], float]


def load_judge(name: str) -> Judge:
    """Import `package.module:function`.

    Raises:
        ConfigError: there is no such module, or nothing callable of that name in it.
    """
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function) if module and function else None
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"judge {name!r}: {error}") from error
    if not callable(found):
        raise ConfigError(f"judge {name!r}: write it as package.module:function, naming something callable")
    judge: Judge = found
    return judge


def judge_result(result: Path, name: str, judge: Judge | None = None, progress: Progress = SILENT) -> dict[str, Any]:
    """Have every answer of a finished result judged.

    Args:
        result: Its folder.
        name: `package.module:function`; names the verdicts' folder too.
        judge: The function itself, where it was loaded already.

    Returns:
        The summary. A result that was judged before is not judged again.

    Raises:
        InputError: the result is not finished, or a verdict lies outside of 0 to 1.
    """
    folder = result / f"judged-{re.sub(r'[^A-Za-z0-9_.]+', '-', name)}"
    if (folder / "manifest.json").is_file():
        known: dict[str, Any] = read_json(folder / "summary.json")
        return known
    judge = judge or load_judge(name)
    records, started = read_records(result), now()
    log = AnswerLog(folder)
    progress.start(f"judge {result.name}", len(records))
    for record in records:
        if record.error is None and record.id not in log:
            log.add({record.id: repr(_verdict(judge, record))}, {})
        progress.advance()
    progress.finish()
    judged = [replace(record, score=float(log.answers[record.id])) for record in records if record.error is None]
    summary = summarise(judged, name)
    lines = [json.dumps({"id": record.id, "score": record.score}) for record in judged]
    write_atomic(folder / "verdicts.jsonl", "".join(f"{line}\n" for line in lines).encode())
    write_atomic(folder / "summary.json", (json.dumps(summary, indent=1) + "\n").encode())
    unasked = len(records) - len(judged)
    write_manifest(
        folder,
        kind="eval",
        name=folder.name,
        counts=Counts(seen=len(records), kept=len(judged), dropped={"not_answered": unasked} if unasked else {}),
        recipe={"judge": name},
        parents=(read_manifest(result),),
        stats={"figures": summary["figures"]},
        started=started,
    )
    log.close(remove=True)
    return summary


def _verdict(judge: Judge, record: Record) -> float:
    gold = str(record.meta.get("gold") or " <OR> ".join(record.gold))
    score = float(judge(Query(record.id, record.prompt, gold, record.answer or "")))
    if not 0 <= score <= 1:
        raise InputError(f"question {record.id}: the judge gave {score}; a verdict lies between 0 and 1")
    return score


def summarise(judged: Sequence[Record], name: str) -> dict[str, Any]:
    """Mean over questions, and over those that ask for each capability (a question may ask for several)."""
    parts: dict[str, list[float]] = defaultdict(list)
    for record in judged:
        parts["judged"].append(record.score or 0.0)
        for capability in record.meta.get("capability", ()):
            parts[f"judged_{capability}"].append(record.score or 0.0)
    interval = mean_interval(judged)
    return {
        "judge": name,
        "figures": {figure: round(sum(scores) / len(scores), DIGITS) for figure, scores in sorted(parts.items())},
        "interval_95": {key: round(value, DIGITS) for key, value in asdict(interval).items()} if interval else None,
        "num_judged": len(judged),
    }
