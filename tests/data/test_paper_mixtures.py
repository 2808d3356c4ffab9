"""The shipped recipe of the real run holds the paper's three mixtures as printed."""

from pathlib import Path

import pytest

from owl3.data.mixture import shares
from owl3.data.needs import mixture_needs
from owl3.errors import ConfigError
from owl3.recipe import RECIPES, Recipe, load_recipe

# mPLUG-Owl3, arXiv:2408.04840v2, table 1, in its order; table 2 for steps and batch.
TABLE = {
    "pretrain": (20_000, 2048, [35.22, 26.07, 14.47, 9.60, 7.73, 5.64, 0.81, 0.46]),
    "multi_image": (3_000, 1024, [34.63, 19.29, 16.69, 15.77, 7.36, 5.25, 1.01]),
    "sft": (11_000, 1024, [57.95, 12.50, 10.41, 9.26, 6.95, 2.02, 0.84, 0.06]),
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(RECIPES / "owl3-7b.yaml")


@pytest.mark.parametrize("stage", sorted(TABLE))
def test_the_mixtures_are_the_papers(recipe: Recipe, stage: str) -> None:
    data = recipe.stage(stage).data
    steps, batch, weights = TABLE[stage]
    assert (data.steps, data.global_batch_size) == (steps, batch)
    assert [dataset.weight for dataset in data.mixture.datasets] == weights
    assert all(dataset.needs for dataset in data.mixture.datasets)
    # The third table adds up to 99.99 as printed; shares are taken of what it adds up to.
    share = shares(data.mixture, [1] * len(weights))
    assert [part / sum(share) for part in share] == pytest.approx([w / sum(weights) for w in weights])


def test_stage_one_needs_forty_one_million_pairs(recipe: Recipe, workspace: Path) -> None:
    needs = mixture_needs(recipe.stage("pretrain").data, workspace)
    held_out = recipe.stage("pretrain").data.held_out
    assert sum(need.min_samples or 0 for need in needs) == pytest.approx(40_960_000 / (1 - held_out), abs=8)
    assert not any(need.is_met for need in needs)


def test_planning_it_names_all_that_is_missing(recipe: Recipe, workspace: Path) -> None:
    from owl3.data.plan import make_plan

    with pytest.raises(ConfigError, match=r"8 of 8 datasets .* datacomp-1b \(DataComp-1B metadata"):
        make_plan(recipe.stage("pretrain").data, workspace, run_name="owl3-7b", stage="pretrain")
