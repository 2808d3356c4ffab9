"""What a recipe would cost: every number has a source, and the sums follow from them."""

import json
import re
from pathlib import Path

import pytest

from owl3.cli import main
from owl3.cli.estimate import parse_count
from owl3.errors import ConfigError
from owl3.estimate.assumptions import assume
from owl3.estimate.cluster import Cluster, load_cluster
from owl3.estimate.steps import Estimate, Estimator
from owl3.recipe import RECIPES, load_recipe

CLUSTER = Path(__file__).parents[2] / "infra" / "clusters" / "8xH100.yaml"
SHAPE = {
    "flops_per_token": 2.6e10,
    "flops_per_picture": 6e11,
    "parameters": 8.06e9,
    "trained": 1e8,
    "checkpoint_bytes": 1.7e10,
    "rank_bytes": 4e10,
}


def estimated(tmp_path: Path, *changes: str, urls: float = 400e6) -> Estimate:
    return _estimator(tmp_path, load_cluster(CLUSTER), *changes).estimate({"some": urls})


def estimated_on(tmp_path: Path, network_gbit_s: float) -> Estimate:
    """On the shipped cluster with another network."""
    told = CLUSTER.read_text().replace("network_gbit_s: {value: 10,", f"network_gbit_s: {{value: {network_gbit_s},")
    other = tmp_path / f"cluster-{network_gbit_s}.yaml"
    other.write_text(told)
    return _estimator(tmp_path, load_cluster(other)).estimate({})


def _estimator(tmp_path: Path, cluster: Cluster, *changes: str) -> Estimator:
    recipe = load_recipe(RECIPES / "owl3-7b.yaml")
    shapes = {stage.name: SHAPE for stage in recipe.stages}
    return Estimator(recipe, cluster, assume(changes), shapes, tmp_path)


def test_training_hours_follow_from_the_plan_and_the_cards(tmp_path: Path) -> None:
    made = estimated(tmp_path)
    pretrain = next(cost for cost in made.costs if cost.step == "train pretrain")
    draws = 20_000 * 2048
    arithmetic = draws * (30 * 2.6e10 + 6e11) / (8 * 989e12 * made.used["rates.flops_used"].value)
    saving = 20 * 1.7e10 / 2e9
    assert pretrain.hours == pytest.approx((arithmetic + saving) / 3600)
    assert pretrain.gpu_hours == pytest.approx(8 * pretrain.hours)
    assert pretrain.money > pretrain.gpu_hours * made.used["prices.gpu_hour"].value


@pytest.mark.parametrize(("blind", "checkpoint", "end"), [("never", 1, 1), ("end", 1, 2), ("always", 2, 2)])
def test_blind_runs_put_each_question_once_more(blind: str, checkpoint: int, end: int, tmp_path: Path) -> None:
    changes = [
        f'eval.tasks=[{{"name": "pope", "folder": "pope", "limit": 600, "checkpoint_limit": 100, "blind": "{blind}"}}]'
    ]
    recipe = load_recipe(RECIPES / "owl3-7b.yaml", changes)
    shapes = {stage.name: SHAPE for stage in recipe.stages}
    made = Estimator(recipe, load_cluster(CLUSTER), assume([]), shapes, tmp_path).estimate({})
    [evaluated] = [cost for cost in made.costs if cost.step == "evaluate pretrain"]
    asked = 19 * 100 * checkpoint + 600 * end
    assert evaluated.limited_by == f"{asked:,} questions"
    assert evaluated.gpu_hours == pytest.approx(asked / made.used["rates.questions_s"].value / 3600)


def test_measured_rates_are_those_of_the_committed_tables() -> None:
    """Roughly: a table that is measured again need not change the cluster file, one that says something else must."""
    rates = load_cluster(CLUSTER).rates
    tables = "\n".join(
        (CLUSTER.parents[1] / "bench" / f"{name}.md").read_text() for name in ("curate", "build", "plan")
    )

    def shown(row: str, unit: str) -> float:
        [figure] = re.findall(rf"^\| {re.escape(row)} \| ([\d.]+) {unit} ", tables, re.M)
        return float(figure)

    measured = {
        "fetch_pictures_s": 1000 / shown("CPU per stored image, owl3", "ms"),
        "look_rows_s": 1e7 / shown("near duplicates among 10,000,000 hashes, CPU", "s"),
        "build_samples_s": shown("building, 2 processes", "samples/s") / 2,
        "plan_samples_s": 41e6 / shown("CPU time", "s"),
    }
    assert {name: getattr(rates, name).value for name in measured} == pytest.approx(measured, rel=0.3)


def test_building_and_auditing_are_held_up_by_what_is_slower(tmp_path: Path) -> None:
    """Samples lie on shared storage: each byte is read and written through the machines' network."""
    slow, fast = ({cost.step: cost for cost in estimated_on(tmp_path, gbit_s).costs} for gbit_s in (10, 10_000))
    for step in ("build pretrain", "card and audit"):
        assert (slow[step].limited_by, fast[step].limited_by) == ("network", "cores")
        assert slow[step].hours > fast[step].hours > 0
    assert slow["build pretrain"].hours == pytest.approx(2 * slow["build pretrain"].stored_bytes * 8 / 16e10 / 3600)


def test_what_the_recipe_draws_sets_how_many_urls_it_needs(tmp_path: Path) -> None:
    recipes_own = estimated(tmp_path).curations[0]
    assert recipes_own.pairs == pytest.approx(20_000 * 2048, rel=1e-3)
    halved = estimated(tmp_path, "web.answered=0.315").curations[0]
    assert halved.urls == pytest.approx(2 * recipes_own.urls, rel=1e-6)


def test_more_urls_never_cost_less(tmp_path: Path) -> None:
    few, many = (estimated(tmp_path, urls=count).curations[1] for count in (1e6, 1e8))
    for key in ("ledger_bytes", "prefect_bytes", "politeness_hours", "shards"):
        assert getattr(many, key) >= getattr(few, key)
    assert sum(cost.money for cost in many.costs) > sum(cost.money for cost in few.costs)


def test_grouping_keeps_prefects_database_small(tmp_path: Path) -> None:
    curation = estimated(tmp_path).curations[1]
    assert curation.shards == 40_000
    assert curation.prefect_bytes < curation.prefect_bytes_ungrouped / 50


def test_every_number_names_its_source(tmp_path: Path) -> None:
    used = estimated(tmp_path, "web.latency_s=2").used
    assert all(figure.source for figure in used.values())
    assert used["web.latency_s"].source == "given by --assume"


def test_a_benchmarks_table_is_taken_instead_of_the_written_value(tmp_path: Path) -> None:
    clusters, tables = tmp_path / "clusters", tmp_path / "bench"
    clusters.mkdir()
    tables.mkdir()
    copy = clusters / "mine.yaml"
    copy.write_text(CLUSTER.read_text())
    assert load_cluster(copy).rates.plan_samples_s.value == 690_000
    (tables / "plan.json").write_text(json.dumps({"samples": 1000, "cpu_seconds": 4}))
    assert load_cluster(copy).rates.plan_samples_s.value == 250
    (tables / "plan.json").write_text(json.dumps({"samples": 1000}))
    with pytest.raises(ConfigError, match=r"plan_samples_s.*no figure"):
        load_cluster(copy)


@pytest.mark.parametrize("change", ["web.answerd=1", "web=1x", "nothing", "web.answered=-1"])
def test_a_wrong_assumption_is_named(change: str) -> None:
    with pytest.raises(ConfigError, match="--assume"):
        assume([change])


def test_counts_are_read_as_people_write_them() -> None:
    assert [parse_count(text) for text in ("250000", "20k", "400M", "5B")] == [250_000, 20_000, 400e6, 5e9]
    with pytest.raises(ConfigError, match="--urls"):
        parse_count("many")


def test_the_shipped_cluster_is_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = tmp_path / "no-stages.yaml"
    recipe.write_text("name: none\n")
    assert main(["estimate", str(recipe), "--urls", "1M", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cluster"] == "8xH100"


@pytest.mark.processes
def test_the_verb_prints_one_json_object_with_real_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--cluster", str(CLUSTER), "--urls", "1M", "--workspace", str(tmp_path), "--json"]
    assert main(["estimate", str(RECIPES / "owl3-7b.yaml"), *arguments]) == 0
    made = json.loads(capsys.readouterr().out.splitlines()[-1])
    pretrain = next(cost for cost in made["costs"] if cost["step"] == "train pretrain")
    assert 10 < pretrain["gpu_hours"] < 1000
    assert pretrain["stored_bytes"] == pytest.approx(4 * 16.1e9, rel=0.1), "three checkpoints of 16 GB and the export"
