"""`owl3 plan`: figures for people and machines, what is missing before anything is written, errors as one line."""

import json
from pathlib import Path

import pytest

from owl3.cli import main
from tests.data.conftest import MakeSamples

RECIPE = """
name: tiny
stages:
  - name: pretrain
    data:
      mixture:
        datasets:
          - {name: photos, weight: 75}
          - {name: pages, weight: 25, needs: a corpus of web pages}
      global_batch_size: 8
      steps: 3
      max_tokens: 200
    trainable: [projector]
    learning_rate: {max: 1.0e-3}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, object]]:
    data: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return data


def test_a_plan_is_made_and_told(
    recipe: Path, workspace: Path, make_samples: MakeSamples, capsys: pytest.CaptureFixture[str]
) -> None:
    make_samples("photos", 20)
    make_samples("pages", 10, images=(0, 2))
    arguments = ["plan", str(recipe), "-w", str(workspace), "--stage", "pretrain"]
    assert main([*arguments, "--json", "--export-energon", str(workspace / "energon")]) == 0
    told = last_json(capsys)["pretrain"]
    assert told["num_steps"] == 3
    assert told["counts"] == {"seen": 30, "kept": 24, "dropped": {"over_quota": 6}}
    assert (workspace / "plans" / "tiny" / "pretrain.png").is_file()
    assert (workspace / "energon" / "pretrain" / "metadataset.yaml").is_file()
    assert main([*arguments, "--no-plot"]) == 0
    shown = capsys.readouterr().out
    assert "Plan tiny/pretrain: 3 steps of 8 samples" in shown
    assert "not planned: over_quota 6" in shown
    assert "image tokens of a step's ranks differ by at most 10 % in" in shown
    assert [at["ranks"] for at in told["rank_balance"]] == [2, 4, 8]  # type: ignore[attr-defined]


def test_a_dry_run_says_what_is_missing_and_writes_nothing(
    recipe: Path, workspace: Path, make_samples: MakeSamples, capsys: pytest.CaptureFixture[str]
) -> None:
    make_samples("photos", 20)
    assert main(["plan", str(recipe), "-w", str(workspace), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "MISSING" in shown
    assert "a corpus of web pages" in shown
    assert not (workspace / "plans").exists()
    assert main(["plan", str(recipe), "-w", str(workspace), "--dry-run", "--json"]) == 0
    needs = last_json(capsys)["pretrain"]
    assert [(need["name"], need["met"]) for need in needs] == [("photos", True), ("pages", False)]  # type: ignore[index]


def test_overrides_reach_the_mixture_and_errors_are_one_line(
    recipe: Path, workspace: Path, make_samples: MakeSamples, capsys: pytest.CaptureFixture[str]
) -> None:
    make_samples("photos", 20)
    arguments = ["plan", str(recipe), "-w", str(workspace), "--no-plot"]
    assert main(arguments) == 2
    assert "1 of 2 datasets of the mixture are not built yet: pages (a corpus of web pages)" in capsys.readouterr().err
    assert main([*arguments, "stages.pretrain.data.steps=0"]) == 2
    assert "stages.0.data.steps" in capsys.readouterr().err
    assert main([*arguments, "stages.pretrain.data.mixture.datasets.photos.weigth=75"]) == 2
    assert "did you mean 'weight'" in capsys.readouterr().err
