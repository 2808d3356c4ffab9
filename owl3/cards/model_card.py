"""`owl3 card RUN/STAGE`: the model card of a trained stage.

    datacards/NAME/models/RUN-STAGE/
        README.md  model.html  figures.json  facts.yaml  manifest.json

People write `datacards/NAME/model.yaml`: what the model is for and what it must not be used for. Which data it learned
from, how much of each, and how it scores is computed from plans, runs and evaluations, and audited like a datacard.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from markupsafe import Markup
from pydantic import Field

from owl3 import __version__
from owl3.cards import charts
from owl3.cards.facts import Citation, Contact, Fact, Licence, Text
from owl3.cards.model_figures import lineage, model_figures
from owl3.cards.render import stylesheet, template_environment
from owl3.config import Config, load_yaml
from owl3.errors import ConfigError
from owl3.manifest import Manifest, find_current, write_manifest
from owl3.storage import write_atomic

DOCUMENTS = ("README.md", "model.html", "figures.json", "facts.yaml")


class ModelFacts(Config):
    """All that a person says about a model. Every field is required."""

    name: Text
    pretty_name: Text
    base_model: Text = Field(description="hub name of the weights it started from, or `none`")
    summary: Fact
    intended_uses: list[Fact] = Field(min_length=1)
    unsuitable_uses: list[Fact] = Field(min_length=1)
    limits: list[Fact] = Field(min_length=1)
    licence: Licence
    contact: Contact
    citation: Citation


def load_model_facts(datacards_dir: Path, name: str) -> ModelFacts:
    """Read `datacards/NAME/model.yaml`.

    Raises:
        ConfigError: when the file or one fact is missing.
    """
    path = datacards_dir / name / "model.yaml"
    if not path.is_file():
        raise ConfigError(f"{path}: no facts about the model; write them (datacards/README.md shows the keys)")
    return load_yaml(path, ModelFacts)


def model_card(run: str, name: str, workspace: Path, datacards_dir: Path) -> Manifest:
    """Render the model card of a finished stage, or do nothing when it is there and current.

    Args:
        run: RUN/STAGE.
        name: Folder under datacards/ that holds model.yaml.

    Raises:
        ConfigError: facts are missing.
        InputError: the stage is not trained to its end.
        StaleError: the card there was made from another run or other facts.
    """
    facts = load_model_facts(datacards_dir, name)
    manifest = lineage(workspace, run)[-1].manifest
    assert manifest is not None
    folder = datacards_dir / name / "models" / run.replace("/", "-")
    recipe = {"model_card": {"name": name, "run": run}, "facts": facts}
    current = find_current(folder, recipe, [manifest])
    if current is not None:
        return current
    for document, data in documents(facts, model_figures(workspace, run)).items():
        write_atomic(folder / document, data)
    return write_manifest(
        folder,
        kind="card",
        name=f"{name}/models/{run.replace('/', '-')}",
        counts=manifest.counts,
        recipe=recipe,
        parents=[manifest],
        tools={"owl3": __version__},
    )


def documents(facts: ModelFacts, figures: dict[str, Any]) -> dict[str, bytes]:
    """The bytes of every document of a model card."""
    page = {
        "facts": facts,
        "figures": figures,
        "css": Markup(stylesheet()),
        "owl3_version": __version__,
        "header": _header(facts, figures),
        "licences": charts.bars(figures["licences"], caption="Licences of the distinct samples it saw"),
        "share": charts.share,
    }
    environment = template_environment()
    text = yaml.safe_dump(facts.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    return {
        "README.md": environment.get_template("model.md.jinja").render(page).encode(),
        "model.html": environment.get_template("model.html.jinja").render(page).encode(),
        "figures.json": (json.dumps(figures, indent=1, ensure_ascii=False) + "\n").encode(),
        "facts.yaml": text.encode(),
    }


def _header(facts: ModelFacts, figures: dict[str, Any]) -> str:
    """The YAML that the hub reads, with the scores as its model index."""
    results = [
        EvalResult(
            task_type="visual-question-answering",
            dataset_type=score["task"],
            dataset_name=score["task"],
            metric_type=score["figure"],
            metric_value=score["score"],
            metric_name=f"{score['figure']} (blind: {score['blind']})",
        )
        for score in figures["scores"]
        if score["score"] is not None
    ]
    data = ModelCardData(
        license=facts.licence.id,
        library_name="transformers",
        pipeline_tag="image-text-to-text",
        base_model=None if facts.base_model == "none" else facts.base_model,
        datasets=sorted({dataset["name"] for stage in figures["stages"] for dataset in stage["datasets"]}),
        tags=["owl3", "multi-image"],
        model_name=facts.name,
        eval_results=results or None,
    )
    return data.to_yaml() + "\n"
