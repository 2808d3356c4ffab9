"""Put a task's questions to a model and write what came of it. No torch: the model comes in as an `Answerer`."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

from owl3.errors import InputError
from owl3.eval.items import Item, Record
from owl3.eval.media import ReadAhead, Shown
from owl3.eval.overlap import mark_overlap, overlap_files
from owl3.eval.results import AnswerLog, check_errors, read_records, read_summary, summarise, write_result
from owl3.eval.task import Task
from owl3.manifest import Manifest, Parent, now
from owl3.progress import SILENT, Progress


@dataclass(frozen=True, slots=True)
class Ask:
    """How answers are wanted.

    Attributes:
        max_new_tokens: How long one may be.
        choose: Pick the likeliest of the options instead of writing, where there are options.
        letters: Options are meant by their letters, not by their words.
        cut: Show pictures cut into tiles.
    """

    max_new_tokens: int = 100
    choose: bool = False
    letters: bool = False
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Share:
    """This process among those that answer one benchmark together: it takes every `size`-th batch.

    Rank 0 waits for the others' answers, which it reads from their logs, and writes the result.
    """

    rank: int = 0
    size: int = 1

    def part_of(self, items: Sequence[Item], batch_size: int) -> list[Item]:
        """The questions of this process, whatever was answered before: all processes must agree who asks what."""
        if self.size == 1:
            return list(items)
        return [item for batch in batches_of(items, batch_size)[self.rank :: self.size] for item in batch]


ALL = Share()
"""A process that answers alone."""

POLL_S = 0.1
MAX_PICTURES = 256
"""Pictures of a batch: what stands in memory decoded, and goes through the vision model, at once."""


class Answerer(Protocol):
    """A model that answers. Its answers may not depend on what else stands in the batch."""

    def answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        """Answer each question, in the order given."""


def select(items: Sequence[Item], limit: int | None) -> list[Item]:
    """The first `limit` questions of a fixed shuffle, in the benchmark's order.

    The shuffle is by a hash of the id: a limited run asks a fair sample, and a larger limit asks all of a smaller one.
    All passes of a question are asked, or none.
    """
    if limit is None or limit >= len(items):
        return list(items)
    questions = sorted({item.question() for item in items}, key=lambda name: hashlib.sha256(name.encode()).digest())
    chosen = set(questions[:limit])
    return [item for item in items if item.question() in chosen]


def load_items(task: Task, folder: Path, overlap: Sequence[Path] = ()) -> Sequence[Item]:
    """Read a benchmark and check what every benchmark must keep.

    Args:
        overlap: Lists of what training may have seen, beside the `overlap.txt` that may lie in the folder.

    Raises:
        InputError: no folder, no questions, or an id that comes twice.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; task {task.name} reads the benchmark's own files from there")
    items = task.load(folder)
    if not items:
        raise InputError(f"{folder}: no questions for task {task.name}")
    seen: set[str] = set()
    for item in items:
        if item.id in seen:
            raise InputError(f"{folder}: question id {item.id!r} comes twice")
        seen.add(item.id)
    return mark_overlap(items, overlap_files(folder, overlap))


def batches_of(items: Sequence[Item], batch_size: int, max_pictures: int = MAX_PICTURES) -> list[list[Item]]:
    """Batches of like questions (same number of pictures, similar length), so that little is padded.

    A batch holds at most `batch_size` questions and, unless one question alone does, at most `max_pictures` pictures.
    """
    ordered = sorted(items, key=lambda item: (num_pictures(item), len(item.text()), item.id))
    batches: list[list[Item]] = []
    held = 0
    for item in ordered:
        pictures = num_pictures(item)
        if not batches or len(batches[-1]) == batch_size or held + pictures > max_pictures:
            batches.append([])
            held = 0
        batches[-1].append(item)
        held += pictures
    return batches


def num_pictures(item: Item) -> int:
    """Pictures and frames that an item shows."""
    return sum(medium.num_frames or 1 for medium in item.media())


def evaluate(
    task: Task,
    items: Sequence[Item],
    answerer: Answerer,
    folder: Path,
    *,
    settings: Mapping[str, Any],
    blind: bool = False,
    batch_size: int = 16,
    choose: bool = False,
    max_error_fraction: float = 0.0,
    parents: Sequence[Manifest | Parent] = (),
    progress: Progress = SILENT,
    share: Share = ALL,
) -> dict[str, Any]:
    """Answer what is not answered yet, judge everything, and write the result's manifest last.

    Args:
        task: Reads, judges and adds up.
        items: The questions, in the benchmark's order.
        answerer: The model.
        folder: The result's folder; answers of a killed run that lie there are kept.
        settings: What the score depends on; stands in the manifest.
        blind: Put the questions without their media.
        batch_size: Questions answered at once.
        choose: Pick the likeliest option instead of generating, where there are options.
        max_error_fraction: How many questions may be unanswerable because their media can't be read.
        parents: Manifests of what was evaluated, where it has one.
        progress: Told of each batch.
        share: Which part is asked here, when several processes answer together.

    Returns:
        The summary; all processes return the same, when it is there.

    Raises:
        CheckFailed: more media were unreadable than allowed; the result is written all the same and says so.
        InputError: the result that lies there is of other questions.
    """
    put = [item.blind() for item in items] if blind else list(items)
    if (folder / "manifest.json").is_file():
        check_questions(put, folder)
        summary = read_summary(folder)
        check_errors(summary, max_error_fraction, folder)
        return summary
    started = now()
    answers = AnswerLog(folder, share.rank, {item.id: item.text() for item in put})
    mine = share.part_of(put, batch_size)
    todo = [item for item in mine if item.id not in answers]
    progress.start(task.name, len(mine))
    progress.advance(len(mine) - len(todo))
    ask = Ask(task.max_new_tokens, choose=choose, letters=task.letters, cut=task.cut)
    timing = _answer_all(batches_of(todo, batch_size), answers, lambda shown: answerer.answer(shown, ask), progress)
    if share.rank:
        answers.close()
        _await((folder / "manifest.json").is_file)
        answers.path.unlink(missing_ok=True)
        summary = read_summary(folder)
        check_errors(summary, max_error_fraction, folder)  # as rank 0 does: all go the same way from here
        return summary
    _await(lambda: _is_complete(put, answers))
    records = [_judge(task, item, answers) for item in put]
    summary = summarise(task, items, records) | {"blind": blind}
    extra = dict([task.submission(records)]) if task.submission and not blind else {}
    write_result(
        folder,
        name=folder.name,
        settings=settings,
        summary=summary,
        records=records,
        timing=timing,
        parents=parents,
        extra_files=extra,
        started=started,
    )
    answers.close(remove=True)
    check_errors(summary, max_error_fraction, folder)
    return summary


def _await(holds: Callable[[], bool]) -> None:
    """Wait for the other processes. Should one of them die, whoever started them all ends this one."""
    while not holds():
        time.sleep(POLL_S)


def _is_complete(items: Sequence[Item], answers: AnswerLog) -> bool:
    if all(item.id in answers for item in items):
        return True
    answers.read_all()
    return all(item.id in answers for item in items)


def check_questions(put: Sequence[Item], folder: Path) -> None:
    """Refuse a finished result that is not of these questions: another split, or files that have changed since.

    Raises:
        InputError: naming the first question that differs.
    """
    asked = [(record.id, record.prompt, record.gold) for record in read_records(folder)]
    wanted = [(item.id, item.text(), item.answers) for item in put]
    if asked != wanted:
        pairs = zip_longest(asked, wanted)
        there, here = next(pair for pair in pairs if pair[0] != pair[1])
        name = (here or there or ("",))[0]
        raise InputError(
            f"{folder}: holds answers to other questions than these (question {name} differs): "
            "give another --out, or remove that folder"
        )


def _answer_all(
    batches: Sequence[Sequence[Item]],
    answers: AnswerLog,
    ask: Callable[[Sequence[Shown]], list[str]],
    progress: Progress,
) -> dict[str, float]:
    """Answer batch by batch into the log; say how fast, and how long the model waited for pictures."""
    reader = ReadAhead(batches)
    count = sum(map(len, batches))
    begun = time.perf_counter()
    for batch in reader:
        ready = [shown for shown in batch if shown.error is None]
        said = ask(ready) if ready else []
        answers.add(
            {shown.item.id: raw for shown, raw in zip(ready, said, strict=True)},
            {shown.item.id: shown.error for shown in batch if shown.error is not None},
        )
        progress.advance(len(batch))
    seconds = time.perf_counter() - begun
    progress.finish()
    return {
        "seconds": round(seconds, 3),
        "num_answered": count,
        "samples_per_second": round(count / seconds, 3) if count else 0.0,
        "waited_for_data_s": round(reader.waited_s, 3),
    }


def _judge(task: Task, item: Item, answers: AnswerLog) -> Record:
    if item.id in answers.errors:
        return task.failure(item, answers.errors[item.id])
    return task.record(item, answers.answers[item.id])
