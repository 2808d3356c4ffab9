"""What TAB offers: names of this place, and nothing (never an error) where there are none."""

from pathlib import Path

import pytest

from owl3.cli import main
from owl3.recipe import RECIPES

DEMO = str(RECIPES / "demo.yaml")


def _offered(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What bash is told for a line whose last word is being typed."""
    monkeypatch.setenv("_OWL3_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
    assert main([]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out.split()


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("owl3 insp", ["inspect"]),
        ("owl3 bench lo", ["loader"]),
        ("owl3 sources show coyo", ["coyo-700m", "coyo-ocr"]),
        ("owl3 tools install im", ["img2dataset"]),
        ("owl3 eval --method ", ["generate", "likelihood"]),
        ("owl3 eval m --tasks pope,scenes-s", ["pope,scenes-single"]),
        (f"owl3 train {DEMO} --stage ", ["pretrain", "multi_image", "sft"]),
        (f"owl3 build {DEMO} --only clip", ["clips", "clip-talks"]),
        (f"owl3 curate {DEMO} --only sc", ["scenes"]),
    ],
)
def test_names_that_are_known_here_or_in_the_recipe_are_offered(
    line: str, offered: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _offered(line, monkeypatch, capsys) == offered


def test_what_lies_in_the_workspace_is_offered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("shards/photos", "shards/clips", "runs/demo/sft"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "manifest.json").touch()
    (tmp_path / "datacards" / "mine").mkdir(parents=True)
    (tmp_path / "datacards" / "mine" / "facts.yaml").touch()
    where = f"--workspace {tmp_path}"
    assert _offered(f"owl3 search {where} ", monkeypatch, capsys) == ["clips", "photos"]
    assert _offered(f"owl3 export {where} demo", monkeypatch, capsys) == ["demo/sft"]
    assert _offered(f"owl3 audit {where} mi", monkeypatch, capsys) == ["mine"]


@pytest.mark.parametrize("recipe", ["nowhere.yaml", __file__, "."])
def test_a_recipe_that_cannot_be_read_offers_nothing(
    recipe: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _offered(f"owl3 train {recipe} --stage ", monkeypatch, capsys) == []
