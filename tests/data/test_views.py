"""`owl3 plan` and `owl3 inspect`: what a step held, and where a sample was seen."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from owl3.cli import main
from owl3.data.needs import mixture_needs
from owl3.data.plot import plot_plan
from owl3.data.views import render_page, samples_of_step
from owl3.errors import ConfigError
from owl3.planfile import Plan
from owl3.shards import write_index
from tests.data.conftest import MakeSamples
from tests.data.test_plan import config, planned


@pytest.fixture
def plan(workspace: Path, make_samples: MakeSamples) -> Plan:
    make_samples("photos", 20)
    make_samples("pages", 20, images=(0, 3))
    return planned(workspace, config("photos", "pages", max_tokens=200))


def test_a_step_is_listed_with_dataset_text_and_urls(plan: Plan, workspace: Path) -> None:
    whole = samples_of_step(plan, workspace, 3)
    assert sorted(seen.slot for seen in whole) == list(range(8))
    schema = pa.schema([("sample_id", pa.string()), ("url", pa.string())])
    row = {"sample_id": whole[0].sample_id, "url": "http://photos.owl3.test/a.jpg"}
    write_index(workspace / "shards" / "scenes" / "00000.parquet", [row], schema)
    again = samples_of_step(plan, workspace, 3)
    assert again[0].urls == ("http://photos.owl3.test/a.jpg",)
    assert {said.role for said in again[0].said} == {"user", "assistant"}
    assert again[0].said[0].text.startswith("[0]") or again[0].num_media == 0


def test_ranks_part_a_step_among_them(plan: Plan, workspace: Path) -> None:
    parts = [samples_of_step(plan, workspace, 2, rank=r, world_size=3) for r in range(3)]
    whole = samples_of_step(plan, workspace, 2)
    assert sorted(seen.slot for part in parts for seen in part) == sorted(seen.slot for seen in whole)
    with pytest.raises(ConfigError, match="rank 3 is not one of 3 ranks"):
        samples_of_step(plan, workspace, 2, rank=3, world_size=3)


def test_the_page_needs_nothing_beside_it_and_escapes_text(plan: Plan, workspace: Path) -> None:
    samples = samples_of_step(plan, workspace, 0)
    page = render_page(plan, workspace, samples)
    assert all(seen.sample_id in page for seen in samples)
    assert page.count("<img") == sum(seen.num_media for seen in samples)
    assert not re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', page)
    assert "default-src 'none'" in page


def test_the_plot_is_a_picture(plan: Plan, tmp_path: Path) -> None:
    plot_plan(plan, tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_inspect_finds_a_sample_by_its_first_digits(
    plan: Plan, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = [str(plan.folder), "--workspace", str(workspace), "--json"]
    assert main(["inspect", *where, "--step", "4"]) == 0
    listed = json.loads(capsys.readouterr().out)["samples"]
    assert main(["inspect", *where, "--sample", listed[0]["sample_id"][:12]]) == 0
    assert 4 in json.loads(capsys.readouterr().out)["steps"]
    assert main(["inspect", *where, "--sample", "f" * 32]) == 2
    assert "keeps the sample" in capsys.readouterr().err


def test_inspect_takes_an_unfinished_run(plan: Plan, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = workspace / "runs" / "run" / "pretrain"
    run.mkdir(parents=True)
    assert main(["inspect", str(run), "--workspace", str(workspace), "--step", "0", "--html", str(run / "0.html")]) == 0
    assert (run / "0.html").is_file()
    assert "run/pretrain, step 0: 8 samples" in capsys.readouterr().out


def test_needs_are_told_before_anything_is_built(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 20)
    mixture = {
        "datasets": [
            {"name": "photos", "weight": 60, "max_epochs": 2},
            {"name": "coyo", "weight": 40, "needs": "the COYO-700M URL table"},
        ]
    }
    photos, coyo = mixture_needs(config(mixture=mixture), workspace)
    assert (photos.draws, photos.min_samples, photos.kept, photos.is_met) == (48, 24, 20, False)
    assert (coyo.draws, coyo.min_samples, coyo.kept, coyo.needs) == (32, 32, None, "the COYO-700M URL table")
