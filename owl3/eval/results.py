"""A result on disk: one JSON line per question, one summary, and a manifest that says it is done.

    evals/step-000100/scenes-single-3fa1c09b7e12/
        samples.jsonl     in the task's order; while it runs: answers.jsonl.partial, appended batch by batch
        summary.json      figures, interval, floors, how answers were read
        timing.json       volatile: seconds, questions per second, wait for data
        manifest.json     kind "eval", written last

The folder's name carries the key, so results of another version, limit or setting lie apart.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from owl3.errors import CheckFailed, InputError
from owl3.eval.floors import majority_floor, random_floor
from owl3.eval.items import Item, Record
from owl3.eval.stats import figure_interval, mean_interval, mean_of, scored
from owl3.eval.task import Task
from owl3.manifest import Counts, Manifest, Parent, write_manifest
from owl3.storage import read_json, write_atomic

SAMPLES_NAME = "samples.jsonl"
PARTIAL_NAME = ".answers.jsonl.partial"
_PARTIALS = ".answers*.jsonl.partial"
DIGITS = 6


class AnswerLog:
    """Answers so far, safe against a kill at any moment: a torn last line is dropped and answered again.

    Of several processes each appends to a log of its own and reads all of them, those of an earlier run too. So is a
    samples.jsonl whose manifest somebody took away: its answers are kept, and only what could not be put is put again.

    Args:
        folder: The result's.
        rank: Of this process.
        asked: Each question as it is put now, by its id: an answer to another wording, of files that have changed
            since, is not taken over.
    """

    def __init__(self, folder: Path, rank: int = 0, asked: Mapping[str, str] = {}) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / (PARTIAL_NAME.replace("answers", f"answers-{rank}") if rank else PARTIAL_NAME)
        self._asked = asked
        self.answers: dict[str, str] = {}
        self.errors: dict[str, str] = {}
        self._handle = self.path.open("ab")
        self._handle.truncate(self.path.read_bytes().rfind(b"\n") + 1)
        if (folder / SAMPLES_NAME).is_file() and not (folder / "manifest.json").is_file():
            kept = (record for record in _lines(folder) if record.error is None)
            self.answers = {r.id: r.raw for r in kept if asked.get(r.id, r.prompt) == r.prompt}
        self.read_all()

    def read_all(self) -> None:
        """Take over what stands in all logs of the folder by now; a line that is still being written is left out."""
        for path in sorted(self.path.parent.glob(_PARTIALS)):
            data = path.read_bytes()
            for line in data[: data.rfind(b"\n") + 1].splitlines():
                row = json.loads(line)
                if row.get("of") not in (None, self._wording(row["id"])):
                    continue
                (self.errors if "error" in row else self.answers)[row["id"]] = row.get("error", row.get("raw"))

    def _wording(self, item_id: str) -> str | None:
        text = self._asked.get(item_id)
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()[:12]

    def __contains__(self, item_id: str) -> bool:
        return item_id in self.answers or item_id in self.errors

    def add(self, answers: Mapping[str, str], errors: Mapping[str, str]) -> None:
        """Append a batch and put it on the disk."""
        rows: list[dict[str, str]] = [{"id": key, "raw": raw} for key, raw in answers.items()]
        rows += [{"id": key, "error": error} for key, error in errors.items()]
        rows = [row | {"of": of} if (of := self._wording(row["id"])) else row for row in rows]
        self._handle.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())
        self._handle.flush()
        os.fsync(self._handle.fileno())
        self.answers.update(answers)
        self.errors.update(errors)

    def close(self, *, remove: bool = False) -> None:
        """Stop writing; `remove` all logs when samples.jsonl has taken over."""
        self._handle.close()
        if remove:
            for path in self.path.parent.glob(_PARTIALS):
                path.unlink(missing_ok=True)


def summarise(task: Task, items: Sequence[Item], records: Sequence[Record]) -> dict[str, Any]:
    """Everything a summary says, from the records alone (items give the floors)."""
    figures = dict(task.aggregate(records))
    primary = task.primary(figures)
    kept = scored(records)
    units = list(task.units(kept)) if task.units else kept
    is_mean = not kept or abs(figures.get(primary, 0) - mean_of(units)) < 1e-9
    interval = (
        mean_interval(units, is_share=task.is_share)
        if is_mean
        else figure_interval(kept, lambda drawn: dict(task.aggregate(drawn)).get(primary, 0.0))
    )
    how = Counter(record.how for record in records if record.error is None)
    asked = max(1, how.total())
    by_category: dict[str, list[Record]] = defaultdict(list)
    for record in kept:
        by_category[record.category].append(record)
    return _rounded(
        {
            "task": task.name,
            "task_version": task.version,
            "primary": primary,
            "figures": figures,
            "interval_95": asdict(interval) if interval else None,
            "num_questions": len(records),
            "num_scored": len(kept),
            "errors": dict(sorted(Counter(r.error.split(":")[0] for r in records if r.error).items())),
            "parsed": {name: how[name] / asked for name in ("strict", "lenient", "failed")},
            "floors": {"random": random_floor(task, items), "majority": majority_floor(task, items)},
            "by_category": {
                name: {"n": len(members), "accuracy": mean_of(members)} for name, members in sorted(by_category.items())
            },
            "by_overlap": _by_overlap(task, units, is_mean),
            "paper": dict(task.paper),
        }
    )


def _by_overlap(task: Task, units: Sequence[Record], is_mean: bool) -> dict[str, dict[str, float]]:
    """The primary figure of what training may have seen, and of the rest; empty without a list of the former."""
    parts: dict[str, list[Record]] = defaultdict(list)
    for record in units:
        if "overlap" in record.meta:
            parts["overlapped" if record.meta["overlap"] else "clean"].append(record)

    def figure(part: Sequence[Record]) -> float:
        figures = {} if is_mean else dict(task.aggregate(part))
        return mean_of(part) if is_mean else figures[task.primary(figures)]

    return {name: {"n": len(part), "score": figure(part)} for name, part in sorted(parts.items())}


def _rounded(value: Mapping[str, Any]) -> dict[str, Any]:
    """Round every float: the last bits of a mean depend on the order of addition."""
    return {key: _rounded(v) if isinstance(v, dict) else _round(v) for key, v in value.items()}


def _round(value: Any) -> Any:
    return round(value, DIGITS) if isinstance(value, float) else value


def write_result(
    folder: Path,
    *,
    name: str,
    settings: Mapping[str, Any],
    summary: Mapping[str, Any],
    records: Iterable[Record],
    timing: Mapping[str, float],
    parents: Sequence[Manifest | Parent] = (),
    extra_files: Mapping[str, bytes] | None = None,
    started: str = "",
) -> Manifest:
    """Write a finished result; its manifest comes last."""
    lines = [json.dumps(record.as_json(), ensure_ascii=False, sort_keys=True) for record in records]
    write_atomic(folder / SAMPLES_NAME, "".join(f"{line}\n" for line in lines).encode())
    write_atomic(folder / "summary.json", _pretty(summary))
    write_atomic(folder / "timing.json", _pretty(timing))
    for file_name, data in (extra_files or {}).items():
        write_atomic(folder / file_name, data)
    dropped = dict(summary["errors"])
    counts = Counts(seen=len(lines), kept=len(lines) - sum(dropped.values()), dropped=dropped)
    return write_manifest(
        folder,
        kind="eval",
        name=name,
        counts=counts,
        recipe=settings,
        parents=parents,
        stats={"figures": summary["figures"]},
        volatile=("timing.json",),
        started=started,
    )


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a finished result.

    Raises:
        InputError: it is not finished.
    """
    if not (folder / "manifest.json").is_file():
        raise InputError(f"{folder}: no finished evaluation; run `owl3 eval` on it again")
    data: dict[str, Any] = read_json(folder / "summary.json")
    return data


def read_records(folder: Path) -> list[Record]:
    """All lines of a finished result."""
    read_summary(folder)
    return _lines(folder)


def _lines(folder: Path) -> list[Record]:
    with (folder / SAMPLES_NAME).open(encoding="utf-8") as lines:
        return [Record.from_json(json.loads(line)) for line in lines]


def check_errors(summary: Mapping[str, Any], max_error_fraction: float, folder: Path) -> None:
    """Refuse a result in which too many questions could not be put.

    Raises:
        CheckFailed: with the counts by reason.
    """
    failed = sum(summary["errors"].values())
    if failed > max_error_fraction * summary["num_questions"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in summary["errors"].items())
        raise CheckFailed(
            f"{summary['task']}: {failed} of {summary['num_questions']} questions could not be put ({reasons}); "
            f"see {folder / SAMPLES_NAME}. Mend the files, remove manifest.json there and run again (only these are "
            "put again), or raise max_error_fraction"
        )
