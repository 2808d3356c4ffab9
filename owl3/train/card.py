"""The model card of an export: what it is, what it learned from, in which stages, and how it scored. No torch.

Everything in it is read from manifests; where a fact is missing the card says so instead of leaving it out.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from owl3.manifest import Manifest, read_manifest
from owl3.planfile import PlanHeader
from owl3.storage import read_json
from owl3.train.stages import plan_folder, stage_folder


def lineage(workspace: Path, run: str, stage: str) -> list[tuple[Manifest, PlanHeader]]:
    """The stages that led to this one, first to last, each with its plan; every parent's digest is checked.

    Raises:
        InputError: a stage or plan is missing, or not the one that the next stage was made from.
    """
    manifest = read_manifest(stage_folder(workspace, run, stage))
    plan = plan_folder(workspace, run, stage)
    header = PlanHeader.model_validate_json((plan / "plan.json").read_bytes())
    before = [parent for parent in manifest.parents if parent.kind == "run"]
    if not before:
        return [(manifest, header)]
    _, _, parent_stage = before[0].name.rpartition("/")
    return [*lineage(workspace, run, parent_stage), (manifest, header)]


def model_card(workspace: Path, run: str, stage: str) -> str:
    """Markdown with the metadata block that the Hugging Face hub reads."""
    stages = lineage(workspace, run, stage)
    datasets = sorted({dataset.name for _, header in stages for dataset in header.datasets})
    metadata = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["owl3", "mplug-owl3"],
        "datasets": datasets,
    }
    model = stages[0][0].recipe.get("model", {})
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False).strip(),
        "---",
        f"# {run}, stage {stage}",
        "",
        "A Qwen2 language model that looks at images through hyper attention (mPLUG-Owl3, arXiv:2408.04840).",
        f"Weights `{stages[-1][0].stats['weights']}`; started from {_start(model)}.",
        "",
        "## Stages",
        "",
        "| stage | steps | samples | trained tokens | images | trained parts | last loss | digest |",
        "| --- | ---: | ---: | ---: | ---: | --- | ---: | --- |",
        *(_stage_row(manifest) for manifest, _ in stages),
        "",
        "## Data",
        "",
        "Which sample was seen at which step follows from the plans; `owl3 trace` goes from a URL to the checkpoints",
        "that saw it, and back.",
        "",
        "| stage | data set | digest | draws | left out while training |",
        "| --- | --- | --- | ---: | --- |",
        *(row for manifest, header in stages for row in _data_rows(manifest, header)),
        "",
        "## Scores",
        "",
        *_scores(stage_folder(workspace, run, stage)),
        "",
        "## Use",
        "",
        "```python",
        "import owl3.model  # makes the Auto classes know it",
        "from transformers import AutoModelForImageTextToText, AutoProcessor",
        "",
        'model, processor = AutoModelForImageTextToText.from_pretrained("."), AutoProcessor.from_pretrained(".")',
        "```",
    ]
    return "\n".join(lines) + "\n"


def _start(model: dict[str, Any]) -> str:
    if model.get("backbones"):
        return f"{model['backbones']['language']} and {model['backbones']['vision']}"
    if model.get("pretrained"):
        return str(model["pretrained"])
    return f"fresh weights (preset {model.get('preset', 'unknown')}, seed {model.get('seed', 'unknown')})"


def _stage_row(manifest: Manifest) -> str:
    stats, recipe = manifest.stats, manifest.recipe["stage"]
    cells = [
        recipe["name"],
        stats["steps"],
        f"{manifest.counts.seen:,}",
        f"{stats['trained_tokens']:,}",
        f"{stats['images']:,}",
        ", ".join(recipe["trainable"]),
        f"{stats['loss']:.4f}",
        f"`{manifest.digest[:12]}`",
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _data_rows(manifest: Manifest, header: PlanHeader) -> Iterator[str]:
    dropped = ", ".join(f"{reason} {count}" for reason, count in manifest.counts.dropped.items()) or "nothing"
    for dataset in header.datasets:
        yield f"| {header.stage} | {dataset.name} | `{dataset.digest[:12]}` | {dataset.draws:,} | {dropped} |"


def _scores(folder: Path) -> Iterator[str]:
    """Results of the evaluation of the stage's final weights."""
    summaries = sorted(folder.glob("evals/end/*/summary.json"))
    if not summaries:
        yield "This export was not evaluated."
        return
    yield "| task | figure | value |"
    yield "| --- | --- | ---: |"
    for path in summaries:
        for figure, value in read_json(path)["figures"].items():
            yield f"| {path.parent.name.rpartition('-')[0]} | {figure} | {value:.4f} |"
