"""Evaluate one checkpoint, or work off a run's queue, in one process.

    python -m owl3.eval --checkpoint DIR --tasks pope,scenes-multi=heldout/scenes-multi-8 --out DIR [--blind]
        [--frames 8,16,32]              a sweep: every task once per number of frames
    python -m owl3.eval --drain runs/NAME[/STAGE] --workspace W      everything that is pending, then end
    python -m owl3.eval --watch runs/NAME --until pretrain,sft       until these stages are complete and drained

Started several times by a launcher (`owl3 eval --processes`, torchrun, srun), processes of the first form answer one
benchmark together, each a share of its questions; those of the others share the queue, request by request.

The last line of stdout (of rank 0) is one JSON object. Exit codes: 0 done; 1 an evaluation failed or a question could
not be put; 2 wrong usage or input; 3 stopped part-way, run again to resume.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from owl3.errors import CheckFailed, InputError, Interrupted, Owl3Error, exit_code_of
from owl3.eval import plots, queue
from owl3.eval.evaluate import ALL, Answerer, Ask, Share, evaluate, load_items, select
from owl3.eval.lmms import lmms_results
from owl3.eval.media import Shown
from owl3.eval.overlap import overlap_digest, overlap_files
from owl3.eval.registry import Chosen, choose_tasks, find_task
from owl3.eval.settings import frame_numbers
from owl3.progress import SILENT, Progress
from owl3.ranks import ranks_in
from owl3.storage import write_atomic

logger = logging.getLogger(__name__)

LoadAnswerer = Callable[[Path], Answerer]
POLL_S = 1.0


def evaluate_checkpoint(
    model_dir: Path,
    tasks: Sequence[Chosen],
    out: Path,
    *,
    load_answerer: LoadAnswerer,
    blind: bool = False,
    limit: int | None = None,
    num_frames: int | None = None,
    batch_size: int = 16,
    method: str = "generate",
    max_error_fraction: float = 0.0,
    overlap: Sequence[Path] = (),
    progress: Progress = SILENT,
    share: Share = ALL,
) -> dict[str, Any]:
    """Score one checkpoint on some tasks; with `blind` also without images, the two side by side.

    Returns:
        task -> summary, with the figures of the blind run under `blind_figures`.

    Raises:
        CheckFailed: of some tasks more media were unreadable than allowed; all were scored all the same.
    """
    weights, processor = queue.weights_digest(model_dir), queue.processor_digest(model_dir)
    loaded = _once(lambda: load_answerer(model_dir))
    report: dict[str, Any] = {}
    failures: list[str] = []
    for one in tasks:
        for is_blind in (False, True) if blind else (False,):
            request = queue.Request(
                model=str(model_dir.resolve()),
                weights=weights,
                processor=processor,
                checkpoint=".",
                step=0,
                task=one.name,
                task_version=find_task(one.name).version,
                title=one.title,
                folder=str(one.folder),
                limit=limit,
                blind=is_blind,
                num_frames=num_frames,
                batch_size=batch_size,
                method=method,
                max_error_fraction=max_error_fraction,
                overlap=tuple(str(path) for path in overlap),
                overlap_digest=overlap_digest(overlap_files(one.folder, overlap)),
            )
            folder = out / request.result_name()
            try:
                summary = _work(request, folder, one.folder, overlap, loaded, progress, share)
            except CheckFailed as failure:
                failures.append(str(failure))
                break
            if is_blind:
                report[one.title]["blind_figures"] = summary["figures"]
            else:
                report[one.title] = summary | {"folder": str(folder)}
    if failures:
        raise CheckFailed("\n".join(failures))
    return report


def drain(
    run_or_stage: Path,
    workspace: Path,
    *,
    load_answerer: LoadAnswerer,
    progress: Progress = SILENT,
    stop: threading.Event | None = None,
    given_up: Mapping[Path, str] = {},
) -> tuple[int, dict[Path, str]]:
    """Work off what is pending and nobody else holds.

    Args:
        run_or_stage: A run's folder, or one stage's.
        workspace: What tasks' folders are relative to.
        load_answerer: Loads the model of a folder.
        progress: Told of each batch.
        stop: Set to end after the request in work.
        given_up: Results (by folder) that are not to be tried.

    Returns:
        How many requests this call completed, and a line for each that failed, by its result's folder. A failure does
        not keep the others from being done; it stays pending, with its reason beside the queue.
    """
    done, failures = 0, dict[Path, str]()
    models: dict[Path, Callable[[], Answerer]] = {}
    for stage_dir in queue.stage_dirs(run_or_stage):
        for request in queue.pending(stage_dir):
            if stop is not None and stop.is_set():
                return done, failures
            place = request.result_folder(stage_dir)
            if place in given_up:
                continue
            with queue.claim(stage_dir, request) as mine:
                if not mine:
                    continue
                model_dir = stage_dir / request.model
                if model_dir not in models:  # requests come checkpoint by checkpoint: one model in memory at a time
                    models = {model_dir: _once(lambda folder=model_dir: load_answerer(folder))}  # type: ignore[misc]
                failure = _try(stage_dir, request, workspace, models[model_dir], progress)
                if failure:
                    failures[place] = failure
                else:
                    done += 1
    return done, failures


def _try(
    stage_dir: Path, request: queue.Request, workspace: Path, model: Callable[[], Answerer], progress: Progress
) -> str | None:
    """Do one request; a failure is noted beside the queue and returned."""
    try:
        if queue.weights_digest(stage_dir / request.model) != request.weights:
            raise InputError(f"{request.model}: other weights lie there now than when the request was left")
        overlap = [workspace / path for path in request.overlap]
        _work(request, request.result_folder(stage_dir), workspace / request.folder, overlap, model, progress)
    except Owl3Error as error:
        queue.note_failure(stage_dir, request, str(error))
        return f"{stage_dir.name}/{request.checkpoint} {request.title}: {error}"
    queue.clear_failure(stage_dir, request)
    return None


def _work(  # noqa: PLR0917 - a request, and where everything lies
    request: queue.Request,
    out: Path,
    data: Path,
    overlap: Sequence[Path],
    model: Callable[[], Answerer],
    progress: Progress,
    share: Share = ALL,
) -> dict[str, Any]:
    task = find_task(request.task)
    items = select(load_items(task, data, overlap), request.limit)
    if request.num_frames is not None:
        items = [item.with_frames(request.num_frames) for item in items]
    return evaluate(
        task,
        items,
        Deferred(model),
        out,
        settings=request.settings(),
        parents=(request.as_parent(),),
        blind=request.blind,
        batch_size=request.batch_size,
        choose=request.method == "likelihood",
        max_error_fraction=request.max_error_fraction,
        progress=progress,
        share=share,
    )


class Deferred:
    """Loads its model at the first question: a result that is there already costs no import of torch."""

    def __init__(self, load: Callable[[], Answerer]) -> None:
        self._load = load

    def answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        """As `Answerer.answer`."""
        return self._load().answer(shown, ask)


def _once(make: Callable[[], Answerer]) -> Callable[[], Answerer]:
    made: list[Answerer] = []

    def get() -> Answerer:
        if not made:
            made.append(make())
        return made[0]

    return get


def watch(
    run: Path,
    workspace: Path,
    *,
    until: Sequence[str],
    load_answerer: LoadAnswerer,
    stop: threading.Event,
    progress: Progress = SILENT,
) -> tuple[int, dict[Path, str]]:
    """Drain again and again until the stages named are complete (their manifest is written) and nothing is pending.

    A request that failed is not tried again by this process.
    """
    total, failures = 0, dict[Path, str]()
    while not stop.is_set():
        # Looked at before draining: a request left meanwhile must not be missed.
        complete = bool(until) and all((run / stage / "manifest.json").is_file() for stage in until)
        done, failed = drain(
            run, workspace, load_answerer=load_answerer, progress=progress, stop=stop, given_up=failures
        )
        total += done
        failures |= failed
        if complete and not done and _open_results(run) <= failures.keys():
            break
        if not done:
            stop.wait(POLL_S)
    return total, failures


def _open_results(run: Path) -> set[Path]:
    return {request.result_folder(stage) for stage in queue.stage_dirs(run) for request in queue.pending(stage)}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m owl3.eval", description="Evaluate checkpoints.")
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument("--checkpoint", type=Path, help="a transformers folder of ours or a converted release")
    mode.add_argument("--drain", type=Path, help="a run's or stage's folder: work off its queue, then end")
    mode.add_argument("--watch", type=Path, help="a run's folder: work off its queue while it trains")
    parser.add_argument("--until", default="", help="with --watch: end when these stages are complete")
    parser.add_argument("--workspace", type=Path, default=Path("workspace"), help="what tasks' folders are relative to")
    parser.add_argument("--tasks", default="", help="NAME[=FOLDER],…")
    parser.add_argument("--data", type=Path, default=Path("benchmarks"), help="where benchmarks lie, one folder each")
    parser.add_argument("--out", type=Path, default=Path("evals"), help="where results go")
    parser.add_argument("--blind", action="store_true", help="also put every question without its images")
    parser.add_argument("--limit", type=int, default=None, help="a fixed, fair part of the questions")
    parser.add_argument("--num-frames", type=int, default=None, help="of each video, instead of the task's number")
    parser.add_argument("--frames", default="", help="N,N,…: a sweep over numbers of frames")
    parser.add_argument("--overlap", type=Path, action="append", default=[], help="list of questions seen in training")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--method", choices=("generate", "likelihood"), default="generate")
    parser.add_argument("--max-error-fraction", type=float, default=0.0)
    parser.add_argument("--threads", type=int, default=0, help="torch threads; 0 leaves torch's own choice")
    return parser


def main(arguments: Sequence[str] | None = None, load_answerer: LoadAnswerer | None = None) -> int:
    """Entry point; `load_answerer` is a seam for tests without torch."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(levelname).1s %(name)s: %(message)s")
    load = load_answerer or _torch_answerer(options.threads)
    return exit_code_of(lambda: _run(options, load), "owl3 eval")


def _run(options: argparse.Namespace, load_answerer: LoadAnswerer) -> int:
    stop = threading.Event()
    # A queue is left after the request in work; one checkpoint's answers are safe at any moment.
    handler = signal.default_int_handler if options.checkpoint else lambda *_: stop.set()
    with _on_termination(handler):
        report, failures = _dispatch(options, load_answerer, stop)
    if not ranks_in(os.environ)[0]:
        sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")
    for line in failures:
        sys.stderr.write(f"owl3 eval: {line}\n")
    if failures:
        return CheckFailed.exit_code
    return Interrupted.exit_code if stop.is_set() else 0


@contextmanager
def _on_termination(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGTERM so while the block runs; only a process's main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _dispatch(
    options: argparse.Namespace, load_answerer: LoadAnswerer, stop: threading.Event
) -> tuple[dict[str, Any], list[str]]:
    if options.checkpoint is not None:
        return _score(options, load_answerer), []
    if options.drain is not None:
        done, failed = drain(options.drain, options.workspace, load_answerer=load_answerer, stop=stop)
    else:
        until = [stage for stage in options.until.split(",") if stage]
        done, failed = watch(options.watch, options.workspace, until=until, load_answerer=load_answerer, stop=stop)
    failures = list(failed.values())
    return {"done": done, "failures": failures}, failures


def _score(options: argparse.Namespace, load_answerer: LoadAnswerer) -> dict[str, Any]:
    """Score one checkpoint, or sweep over numbers of frames; rank 0 also writes plots and lmms-eval's layout."""
    rank, size, _ = ranks_in(os.environ)
    loaded = _once(lambda: load_answerer(options.checkpoint))

    def evaluated(num_frames: int | None) -> dict[str, Any]:
        return evaluate_checkpoint(
            options.checkpoint,
            choose_tasks(options.tasks, options.data),
            options.out,
            load_answerer=lambda _: loaded(),
            blind=options.blind,
            limit=options.limit,
            num_frames=num_frames,
            batch_size=options.batch_size,
            method=options.method,
            max_error_fraction=options.max_error_fraction,
            overlap=options.overlap,
            share=Share(rank, size),
        )

    if options.frames:
        sweep = {number: evaluated(number) for number in frame_numbers(options.frames)}
        return {"frames": sweep} | ({"plots": plots.draw_sweep(sweep, options.out)} if not rank else {})
    report = evaluated(options.num_frames)
    if rank:
        return {}
    settings = {"batch_size": options.batch_size, "limit": options.limit}
    layout = lmms_results(report, str(options.checkpoint), settings)
    write_atomic(options.out / "lmms_eval_results.json", json.dumps(layout, indent=1).encode())
    return {"tasks": report, "plots": plots.draw_curves(report, options.out)}


def _torch_answerer(threads: int) -> LoadAnswerer:
    def load(model_dir: Path) -> Answerer:
        from owl3.eval.generate import Generator

        return Generator.load(model_dir, threads=threads)

    return load
