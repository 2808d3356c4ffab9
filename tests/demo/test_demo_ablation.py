"""`owl3 ablate` on a world of a few samples, with training and evaluation in this process: real, but small."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from train.world import make_world, recipe

from owl3 import launch
from owl3.cli import main
from owl3.config import plain
from owl3.demo import ablation
from owl3.demo.ablation import ablate, variants_of
from owl3.errors import ConfigError, Interrupted
from owl3.eval.runner import main as evaluate
from owl3.recipe import RECIPES, Recipe, load_recipe
from owl3.train.__main__ import main as train

VARIANTS = [
    {"name": "gated"},
    {"name": "concat", "about": "images in the sequence", "config": {"fusion": "concat", "hyper_layers": []}},
]


def small(workspace: Path) -> Recipe:
    """Two variants on two seeds, one stage of two steps, three questions."""
    made = recipe(steps=2)
    bench = workspace / "bench"
    bench.mkdir()
    rows = []
    for number, colour in enumerate(("red", "green", "blue")):
        Image.new("RGB", (8, 8), colour).save(bench / f"{number}.png")
        row = {"id": f"q{number}", "media": [f"{number}.png"], "question": "what is it?", "answer": colour}
        rows.append(row | {"options": ["red", "green", "blue"]})
    (bench / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = plain(made.model)
    model["config"] |= {"fusion": "gated", "template": "241101"}
    data: dict[str, Any] = {
        "name": "small",
        "tokenizer": {"name": "words", "vocab_size": 400, "files": ["unread"]},
        "model": model,
        "stages": [plain(made.stages[0])],
        "eval": {"tasks": [{"name": "scenes-single", "folder": "bench", "blind": "never"}]},
        "ablation": {"seeds": [0, 1], "variants": VARIANTS},
    }
    make_world(workspace, made)
    return Recipe.model_validate(data)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been processes; the data are there already."""
    names: list[str] = []

    def run_module(module: str, arguments: Sequence[str], **_: object) -> None:
        names.append(module)
        code = {"owl3.train": train, "owl3.eval": evaluate}[module](arguments)
        if code:
            raise Interrupted(f"{module} ended with exit code {code}")

    monkeypatch.setattr(launch, "run_module", run_module)
    monkeypatch.setattr(ablation, "steps_before_training", lambda _: [])
    return names


def test_variants_differ_in_the_model_alone_and_seeds_in_weights_and_order() -> None:
    loaded = load_recipe(RECIPES / "ablation.yaml")
    wanted = variants_of(loaded)
    assert len(wanted) == 6 * 3
    assert wanted[0].recipe.name == "ablation-gated-0"
    first = {variant.name: plain(variant.recipe) for variant in wanted if variant.seed == 1}
    for data in first.values():
        data.pop("name")
        config = data["model"].pop("config")
        assert (config["fusion"] == "concat") == (config["hyper_layers"] == [])
    assert all(data == first["gated"] for data in first.values())
    assert {variant.recipe.stages[0].data.seed for variant in wanted} == {0, 1, 2}


def test_every_shipped_variant_builds_a_model_of_its_own() -> None:
    from owl3.model.config import Owl3Config

    configs = {}
    for variant in variants_of(load_recipe(RECIPES / "ablation.yaml")):
        assert variant.recipe.model is not None
        config = Owl3Config.preset("tiny", **variant.recipe.model.config)
        assert config.release == "240728"
        key = (config.fusion, config.image_rotary, config.shared_layernorm, tuple(config.hyper_layers))
        configs[variant.name] = key
    assert len(set(configs.values())) == 6


def test_a_stopped_ablation_goes_on_and_compares_what_is_complete(tmp_path: Path, started: list[str]) -> None:
    made = small(tmp_path)
    part = ablate(made, tmp_path, only=["gated"])
    assert [(line.variant, line.seeds) for line in part.lines] == [("gated", 2)]
    assert started == ["owl3.train", "owl3.eval"] * 2
    whole = ablate(made, tmp_path)
    assert started == ["owl3.train", "owl3.eval"] * 4
    assert [line.variant for line in whole.lines] == ["gated", "concat"]
    gated, concat = whole.lines
    assert gated.scores.keys() == {"scenes-single accuracy"}
    assert gated.step_s > 0 and gated.memory_bytes > 0 and gated.answers_per_s > 0
    assert gated.parameters > concat.parameters  # which has no projection of images in hyper layers
    assert ablate(made, tmp_path).runs == whole.runs
    assert len(started) == 8  # nothing was done twice
    text = (whole.folder / "table.md").read_text()
    assert "| concat |" in text and "- **concat**: images in the sequence" in text
    assert len(json.loads((whole.folder / "table.json").read_text())["runs"]) == 4


def test_what_can_not_be_compared_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = load_recipe(RECIPES / "ablation.yaml")
    with pytest.raises(ConfigError, match=r"no variant 'gate'; one of gated, concat"):
        ablate(made, tmp_path, only=["gate"])
    assert main(["ablate", str(RECIPES / "demo.yaml"), "--dry-run", "-w", str(tmp_path)]) == 2
    assert "has no section 'ablation'" in capsys.readouterr().err
    assert main(["ablate", str(RECIPES / "ablation.yaml"), "--only", "joint", "--dry-run", "--json"]) == 0
    names = json.loads(capsys.readouterr().out.splitlines()[-1])["would_train"]
    assert names == ["ablation-joint-0", "ablation-joint-1", "ablation-joint-2"]
