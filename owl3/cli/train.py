"""`owl3 train`, `owl3 export` and `owl3 launch`: stages, as processes of their own. Torch is never imported here."""

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from owl3.cli import complete
from owl3.cli.common import (
    DEFAULT_WORKSPACE,
    DryRun,
    FoundWorkspace,
    Json,
    Overrides,
    Recipe,
    TerminalProgress,
    Workspace,
    emit,
    table,
)
from owl3.errors import ConfigError, InputError
from owl3.train.command import TRACKERS, Launcher, TrainCommand

Stage = Annotated[
    str,
    typer.Option(
        "--stage", "-s", help="One stage; without it all, in order.", autocompletion=complete.named_in("stages")
    ),
]
Processes = Annotated[int, typer.Option("--processes", "-n", min=1, help="How many ranks.")]
DeepSpeedJson = Annotated[
    Path | None, typer.Option("--deepspeed-json", help="Memory and communication: infra/deepspeed/*.json.")
]


_WEEK_S = 7 * 24 * 3600.0


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("train")(train)
    app.command("launch")(show_launch)
    app.command("export")(export)


def train(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    stage: Stage = "",
    processes: Processes = 1,
    deepspeed_json: DeepSpeedJson = None,
    grace: Annotated[float, typer.Option(min=0, max=_WEEK_S, help="Seconds that SIGTERM leaves for saving.")] = 30.0,
    timeout: Annotated[
        float, typer.Option(min=1, max=_WEEK_S, help="Seconds after which a rank that is late is an error.")
    ] = 600.0,
    report_to: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(TRACKERS)}: who draws curves (repeat it).")
    ] = None,
    quarantine: Annotated[
        list[str] | None, typer.Option(help="A sample id to take out first (repeat it); training goes on without it.")
    ] = None,
    preflight: Annotated[bool, typer.Option("--preflight", help="Only check, with the plan's worst step.")] = False,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
    dry_run: DryRun = False,
) -> None:
    """Train one stage, or all in order, each from the verified export of the one before; resumes by itself.

    Example: `owl3 train flows/recipes/owl3-7b.yaml --stage pretrain --processes 8`

    Missing plans are made first. A step whose loss is not finite names its samples: `--quarantine ID` writes
    tombstones, which the loader honours, and goes on. Exit code 3: stopped part-way (SIGTERM saves first); the same
    command resumes.
    """
    from owl3 import launch, pipeline
    from owl3.config import plain
    from owl3.manifest import Manifest, read_manifest
    from owl3.recipe import load_recipe
    from owl3.storage import read_json
    from owl3.train.options import read_options
    from owl3.train.stages import TrainRecipe, finished, stage_folder

    loaded = load_recipe(recipe, overrides or ())
    asked = [loaded.stage(stage)] if stage else list(loaded.stages)
    if not asked:
        raise ConfigError(f"{recipe}: has no stages, so there is nothing to train")
    read_options(deepspeed_json)
    strange = next((name for name in report_to or () if name not in TRACKERS), None)
    if strange is not None:
        raise ConfigError(f"--report-to {strange}: one of {', '.join(TRACKERS)}")
    train_recipe = TrainRecipe.model_validate(plain(loaded))
    commands = [
        TrainCommand(
            recipe=workspace / "runs" / loaded.name / "recipe.json",
            stage=one.name,
            workspace=workspace,
            processes=processes,
            deepspeed_json=deepspeed_json,
            grace_s=grace,
            timeout_s=timeout,
            preflight=preflight,
            report_to=tuple(report_to or ()),
        )
        for one in asked
    ]
    if dry_run:
        lines = [shlex.join(["python", "-m", *_flat(command)]) for command in commands]
        emit(as_json, {"would_run": lines}, *lines)
        return
    if quarantine:
        from owl3.cards.retract import assess, bury
        from owl3.cards.subjects import understand

        subjects = [understand(sample_id, "sample_id") for sample_id in quarantine]
        impact = assess(workspace, subjects)
        if impact.missing:
            raise InputError(f"--quarantine {impact.missing[0].text}: no sample of {workspace} has this id")
        bury(workspace, impact, f"quarantined in training {loaded.name}")
    place, progress = pipeline.Place.at(workspace, {}), TerminalProgress()
    results: dict[str, Manifest] = {}
    reports: dict[str, dict[str, Any]] = {}
    for one, command in zip(asked, commands, strict=True):
        pipeline.plan_stage(loaded, one.name, place, progress)
        pipeline.write_resolved(loaded, workspace)
        if preflight or finished(train_recipe, one, workspace) is None:
            launch.run_module(*command.on_this_machine())
        folder = stage_folder(workspace, loaded.name, one.name)
        if preflight:
            reports[one.name] = read_json(folder / "preflight.json")
        else:
            results[one.name] = read_manifest(folder)
    if preflight:
        emit(as_json, reports, *map(_preflight_table, reports.values()))
        return
    emit(
        as_json,
        {name: {"digest": made.digest, **made.stats} for name, made in results.items()},
        *[
            f"{name}: {made.stats['steps']} steps, loss {made.stats['loss']:.4f}, "
            f"{stage_folder(workspace, loaded.name, name) / 'model'}"
            for name, made in results.items()
        ],
    )


def _preflight_table(report: dict[str, Any]) -> Any:
    """What the preflight of a stage found, as a table."""
    parameters = ", ".join(f"{group} {count:,}" for group, count in report["parameters"].items())
    shown = table(
        f"{report['stage']}: {report['steps']} steps on {report['ranks']} ranks; trains {parameters}", "", ">"
    )
    for tried in report["tried"]:
        name = f"{tried['why']} (step {tried['step']}: {tried['tokens']} tokens, {tried['tiles']} tiles)"
        shown.add_row(name, f"{tried['seconds']:.2f} s")
    shown.add_row("peak memory of a rank", f"{report['peak_memory_bytes'] / 2**30:.2f} GiB")
    shown.add_row("whole stage at the average step's speed, with checkpoints", f"{report['hours']:.2f} h")
    size = f"{report['checkpoint_bytes'] / 1e9:.3f} GB in {report['checkpoint_seconds']:.1f} s"
    shown.add_row(f"one of {report['checkpoints']} checkpoints", size)
    need, free = report["disk_needed_bytes"] / 1e9, report["disk_free_bytes"] / 1e9
    shown.add_row("disk needed at once, and free", f"{need:.3f} GB, {free:.1f} GB")
    for warning in report["warnings"]:
        shown.add_row(f"warning: {warning}", "")
    return shown


def export(
    run: Annotated[
        str,
        typer.Argument(
            help="RUN/STAGE, as in owl3-7b/sft.",
            show_default=False,
            metavar="RUN/STAGE",
            autocompletion=complete.folders("runs/*/*/manifest.json", depth=2),
        ),
    ],
    to: Annotated[Path, typer.Option(help="A folder that does not exist yet.", show_default=False)],
    workspace: FoundWorkspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Copy a stage's model out of the workspace as a `transformers` folder with a model card; every tensor is checked.

    Example: `owl3 export demo/sft --to exported/demo`
    """
    from owl3 import launch
    from owl3.manifest import read_manifest
    from owl3.train.stages import stage_folder

    name, separator, stage = run.partition("/")
    if not separator:
        raise ConfigError(f"export {run}: write it as RUN/STAGE")
    arguments = ["--workspace", str(workspace), "--run", name, "--stage", stage, "--to", str(to)]
    weights = read_manifest(stage_folder(workspace, name, stage)).stats["weights"]
    if to.exists():
        raise InputError(f"{to}: exists already; remove it or choose another name")
    launch.run_module("owl3.train.publish", arguments)
    emit(as_json, {"folder": str(to), "weights": weights}, f"{to}: weights {weights[:12]}, model card README.md")


def show_launch(  # noqa: PLR0917 - options of a command line
    recipe: Recipe,
    overrides: Overrides = None,
    stage: Stage = "",
    processes: Processes = 1,
    launcher: Annotated[Launcher, typer.Option(help="Who starts the ranks.")] = "torchrun",
    deepspeed_json: DeepSpeedJson = None,
    workspace: Workspace = DEFAULT_WORKSPACE,
    as_json: Json = False,
) -> None:
    """Print the command that trains a stage under a launcher of your own.

    Example: `owl3 launch flows/recipes/owl3-7b.yaml --stage pretrain --processes 32 --launcher srun`
    """
    from owl3 import pipeline
    from owl3.recipe import load_recipe
    from owl3.train.options import read_options

    loaded = load_recipe(recipe, overrides or ())
    asked = [loaded.stage(stage)] if stage else list(loaded.stages)
    if not asked:
        raise ConfigError(f"{recipe}: has no stages, so there is nothing to launch")
    read_options(deepspeed_json)
    resolved = pipeline.write_resolved(loaded, workspace)
    lines = [
        shlex.join(TrainCommand(resolved, one.name, workspace, processes, deepspeed_json).under(launcher))
        for one in asked
    ]
    emit(as_json, {"commands": lines}, *lines)


def _flat(command: TrainCommand) -> list[str]:
    module, arguments = command.on_this_machine()
    return [module, *arguments]
