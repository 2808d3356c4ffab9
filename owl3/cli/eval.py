"""`owl3 eval`: score a checkpoint, work off a run's queue, or compare two results."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from owl3.cli import complete
from owl3.cli.common import DEFAULT_WORKSPACE, DryRun, Json, TerminalProgress, Workspace, emit, table
from owl3.errors import ConfigError, InputError

if TYPE_CHECKING:
    from owl3.eval.registry import Chosen

_HOW = "How questions are put"
_QUEUE = "Instead of a model folder: the checkpoints of a run"
_ELSE = "Instead of evaluating"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("eval")(evaluate)
    app.command("judge")(judge)


def evaluate(  # noqa: PLR0917 - options of a command line
    checkpoint: Annotated[Path | None, typer.Argument(help="A model folder.", show_default=False)] = None,
    tasks: Annotated[
        str,
        typer.Option(
            help="NAME[=FOLDER or =hf:OWNER/NAME],… ; `--list` shows the names.", autocompletion=complete.tasks
        ),
    ] = "",
    data: Annotated[Path, typer.Option(help="Where benchmarks lie, one folder per task.")] = Path("benchmarks"),
    out: Annotated[Path, typer.Option(help="Where results go.")] = Path("evals"),
    blind: Annotated[
        bool, typer.Option("--blind", help="Also put every question without its images.", rich_help_panel=_HOW)
    ] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="A fixed, fair part of the questions.", rich_help_panel=_HOW)
    ] = None,
    num_frames: Annotated[
        int | None, typer.Option(min=1, help="Frames of each video, instead of the task's own.", rich_help_panel=_HOW)
    ] = None,
    frames: Annotated[
        str, typer.Option(help="N,N,…: a sweep; every task once per number of frames.", rich_help_panel=_HOW)
    ] = "",
    overlap: Annotated[
        list[Path] | None,
        typer.Option(help="A list of what training saw, as curation writes it (repeat it).", rich_help_panel=_HOW),
    ] = None,
    method: Annotated[
        Literal["generate", "likelihood"],
        typer.Option(help="Write an answer, or pick the likeliest option.", rich_help_panel=_HOW),
    ] = "generate",
    max_error_fraction: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of questions whose images may be unreadable.", rich_help_panel=_HOW),
    ] = 0.0,
    batch_size: Annotated[
        int, typer.Option(min=1, help="Questions answered at once; changes no score.", rich_help_panel=_HOW)
    ] = 16,
    processes: Annotated[
        int, typer.Option(min=1, help="Processes that share the questions; changes no score.", rich_help_panel=_HOW)
    ] = 1,
    watch: Annotated[
        Path | None,
        typer.Option(help="A run's folder: work off its queue while it trains.", rich_help_panel=_QUEUE),
    ] = None,
    drain: Annotated[
        Path | None, typer.Option(help="A run's folder: work off its queue, then end.", rich_help_panel=_QUEUE)
    ] = None,
    until: Annotated[
        str, typer.Option(help="With --watch: end when these stages are complete.", rich_help_panel=_QUEUE)
    ] = "",
    compare_with: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--compare", help="Two result folders of one task.", metavar="PATH PATH", rich_help_panel=_ELSE),
    ] = None,
    list_tasks: Annotated[bool, typer.Option("--list", help="List the tasks.", rich_help_panel=_ELSE)] = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Score a checkpoint on benchmarks, or every checkpoint of a run.

    Example: `owl3 eval workspace/runs/demo/sft/model --tasks scenes-single=held/scenes-single --blind`

    `--frames 8,16,32,64,128` draws accuracy over frames; the tasks `distractor-*` and `needle-scenes` draw their curve
    and grid. A killed evaluation goes on where it stopped; what is done is not done again. Exit code 1 when more
    questions than `--max-error-fraction` could not be put (an image is missing or broken): the summary counts them, and
    they enter no average.
    """
    from owl3.eval.registry import choose_tasks
    from owl3.eval.settings import frame_numbers

    if list_tasks:
        _show_tasks(as_json)
    elif compare_with is not None:
        _show_comparison(*compare_with, as_json=as_json)
    elif watch is not None or drain is not None:
        run = watch or drain
        assert run is not None
        if not run.is_dir():
            if watch is None or dry_run:
                raise InputError(f"{run}: no such run; give its folder, as in workspace/runs/demo")
            typer.echo(f"{run}: not there yet; waiting until it is trained", err=True)
        if dry_run:
            _show_queue(run, as_json)
        else:
            mode = ["--watch", str(run), "--until", until] if watch is not None else ["--drain", str(run)]
            before = _num_done(run)
            report = _run([*mode, "--workspace", str(workspace)], processes, apart=True)
            report["done"] = _num_done(run) - before  # by all processes; each tells its own
            emit(as_json, report, f"{report['done']} evaluations done")
    elif checkpoint is not None:
        sweep = frame_numbers(frames) if frames else ()
        if sweep and num_frames is not None:
            raise ConfigError("--frames sweeps over numbers of frames; leave --num-frames out")
        chosen = choose_tasks(tasks, data, fetch=not dry_run)
        if dry_run:
            _show_plan(checkpoint, chosen, limit, max(1, len(sweep)) * (2 if blind else 1), as_json)
            return
        command = ["--checkpoint", str(checkpoint), "--tasks", tasks, "--data", str(data), "--out", str(out)]
        command += ["--batch-size", str(batch_size), "--method", method]
        command += ["--max-error-fraction", str(max_error_fraction)]
        command += ["--limit", str(limit)] if limit is not None else []
        command += ["--num-frames", str(num_frames)] if num_frames is not None else []
        command += ["--frames", ",".join(map(str, sweep))] if sweep else []
        command += [word for path in overlap or () for word in ("--overlap", str(path))]
        command += ["--blind"] if blind else []
        report = _run(command, processes)
        shown = _sweep_table(report["frames"]) if sweep else _scores_table(report["tasks"])
        emit(as_json, report, shown, *(f"Drawn in {path}" for path in report["plots"]))
    else:
        raise ConfigError("give a model folder and --tasks, or --watch, --drain, --compare or --list")


def judge(
    result: Annotated[Path, typer.Argument(help="The folder of a finished result.", show_default=False)],
    by: Annotated[
        str, typer.Option(help="package.module:function; takes a Query, returns 0 to 1.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Have answers judged that no rule can score, such as MM-Vet's; verdicts lie beside the result.

    Example: `owl3 judge evals/mmvet-5e6f01 --by my_judges.gpt4:grade`

    Stopped at any moment, the same command goes on; no verdict is asked for twice.
    """
    from owl3.eval.judge import judge_result

    sys.path.insert(0, str(Path.cwd()))  # a judge of one's own lies where one works
    summary = judge_result(result, by, progress=TerminalProgress())
    shown = table(f"Judged by {by}", "figure", ">score")
    for name, value in summary["figures"].items():
        shown.add_row(name, _percent(value))
    emit(as_json, summary, shown)


def _num_done(run: Path) -> int:
    from owl3.eval.queue import read_requests, stage_dirs

    return sum(request.is_done(stage) for stage in stage_dirs(run) for request in read_requests(stage))


def _run(arguments: list[str], processes: int, *, apart: bool = False) -> dict[str, Any]:
    """Start the evaluating processes and read the JSON object that the first one ends with."""
    from owl3 import launch

    if processes > 1:
        arguments = [*arguments, "--threads", str(max(1, (os.cpu_count() or 1) // processes))]
    report: dict[str, Any] = json.loads(
        launch.run_ranks("owl3.eval", arguments, processes, apart=apart).splitlines()[-1]
    )
    return report


def _sweep_table(sweep: dict[str, Any]) -> Any:
    shown = table("Scores over frames", "task", *(f">{number}" for number in sweep))
    for title in next(iter(sweep.values())):
        summaries = [report[title] for report in sweep.values()]
        name = summaries[0]["primary"]
        shown.add_row(f"{title} {name}", *(_percent(summary["figures"].get(name)) for summary in summaries))
    return shown


def _scores_table(report: dict[str, Any]) -> Any:
    split = [part for part in ("clean", "overlapped") if any(part in s["by_overlap"] for s in report.values())]
    columns = (">score", ">95 %", ">blind", ">random", ">majority", ">paper", ">read strictly")
    shown = table("Scores", "task", *columns, *(f">{part}" for part in split))
    for title, summary in report.items():
        name = summary["primary"]
        interval, floors = summary["interval_95"], summary["floors"]
        paper = max(summary["paper"].values(), default=None)
        shown.add_row(
            f"{title} {name}",
            _percent(summary["figures"].get(name)),
            f"{_percent(interval['low'])}-{_percent(interval['high'])}" if interval else "-",
            _percent(summary.get("blind_figures", {}).get(name)),
            _percent(floors["random"]),
            _percent(floors["majority"]),
            _percent(paper),
            _percent(summary["parsed"]["strict"]),
            *(_percent(summary["by_overlap"].get(part, {}).get("score")) for part in split),
        )
    return shown


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _show_tasks(as_json: bool) -> None:
    from owl3.eval.registry import find_task, task_names

    found = [find_task(name) for name in task_names()]
    shown = table("Tasks", "name", "version", "what it is")
    for task in found:
        shown.add_row(task.name, task.version, task.about)
    emit(as_json, {"tasks": [{"name": t.name, "version": t.version, "about": t.about} for t in found]}, shown)


def _show_plan(checkpoint: Path, chosen: "Sequence[Chosen]", limit: int | None, passes: int, as_json: bool) -> None:
    """What would be asked, after the looks that need no model: does it lie there, can the questions be read?"""
    from owl3.eval.evaluate import load_items, select
    from owl3.eval.registry import HUB, find_task

    if not (checkpoint / "config.json").is_file():
        raise ConfigError(f"{checkpoint}: no config.json; give a model folder")
    questions: dict[str, int | None] = {}
    lines = []
    for one in chosen:
        is_far = str(one.folder).startswith(HUB)
        items = [] if is_far else select(load_items(find_task(one.name), one.folder), limit)
        questions[one.title] = None if is_far else len(items)
        asked = "as many questions as the hub holds" if is_far else f"{len(items)} questions"
        times = f", each {passes} times" if passes > 1 else ""
        lines.append(f"{one.title}: {asked} of {one.folder}{times}")
    emit(as_json, {"would_evaluate": list(questions), "questions": questions, "passes": passes}, *lines)


def _show_queue(run: Path, as_json: bool) -> None:
    from owl3.eval.queue import pending, stage_dirs

    waiting = [(stage, request) for stage in stage_dirs(run) for request in pending(stage)]
    lines = [f"{s.name}/{r.checkpoint}: {r.title}{' blind' if r.blind else ''}" for s, r in waiting]
    emit(as_json, {"pending": lines}, *(lines or ["nothing is pending"]))


def _show_comparison(first: Path, second: Path, *, as_json: bool) -> None:
    from owl3.eval.comparison import compare_results

    found = compare_results(first, second)
    line = (
        f"{found.figure} {100 * found.first:.2f} -> {100 * found.second:.2f} on {found.num_pairs} questions: "
        f"difference {100 * (found.second - found.first):+.2f} (95 %: {100 * found.difference.low:+.2f} to "
        f"{100 * found.difference.high:+.2f}), p = {found.p_value:.4f}; better in the first: {found.num_only_first}, "
        f"in the second: {found.num_only_second}"
    )
    data = {
        "figure": found.figure,
        "first": found.first,
        "second": found.second,
        "pairs": found.num_pairs,
        "p": found.p_value,
    }
    emit(as_json, data | {"difference_95": [found.difference.low, found.difference.high]}, line)
