"""The demo's chain on a small corpus: each injected fault under its own reason, and nothing done twice."""

import json
from pathlib import Path

import pytest
from planted import holding

from demo.tiny import CORPUS, write_tiny_recipe
from owl3.demo.corpus import read_expected
from owl3.demo.faults import FAULTS, Fault, expected_drops
from owl3.demo.run import Account, check_expected
from owl3.demo.world import corpus_folder, served
from owl3.errors import CheckFailed, ConfigError
from owl3.manifest import Counts
from owl3.pipeline import (
    Outcome,
    Place,
    all_steps,
    choose_steps,
    digests,
    resolve_from_environment,
    steps_before_training,
)
from owl3.recipe import Recipe, load_recipe

pytestmark = pytest.mark.xdist_group("demo")  # one worker makes the workspaces that these tests share


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return load_recipe(write_tiny_recipe(tmp_path_factory.mktemp("recipe") / "tiny.yaml"))


@pytest.fixture(scope="module")
def prepared(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Outcome]]:
    """A workspace with everything up to the plans, and what each step said."""
    workspace = tmp_path_factory.mktemp("chain")
    with served(recipe, workspace) as resolve:
        place = Place.at(workspace, resolve)
        return workspace, [step.run(recipe, place) for step in steps_before_training(recipe)]


def counts_of(prepared: tuple[Path, list[Outcome]]) -> dict[str, Counts]:
    return {outcome.artifact: outcome.counts for outcome in prepared[1]}


@pytest.mark.processes
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_each_injected_fault_is_counted_under_its_own_reason(
    prepared: tuple[Path, list[Outcome]], fault: Fault
) -> None:
    counts = counts_of(prepared)[fault.artifact]
    if fault.reason is None:
        assert "server_error" in counts.dropped, "the host that is busy for ever is dropped"
        assert counts.kept == CORPUS["pictures"] + fault.count, "the one that is busy once is not"
    else:
        same_reason = [other.count for other in FAULTS if other.reason == fault.reason]
        assert counts.dropped[fault.reason] == sum(same_reason)


@pytest.mark.processes
def test_nothing_is_dropped_but_by_the_schedule(prepared: tuple[Path, list[Outcome]]) -> None:
    workspace, _ = prepared
    found = counts_of(prepared)
    for artifact, wanted in read_expected(corpus_folder(workspace)).items():
        assert found[artifact].model_dump() == wanted
        assert found[artifact].dropped == expected_drops(artifact)
    check_expected(workspace, found)


@pytest.mark.processes
def test_a_count_beside_the_schedule_is_a_failed_check(prepared: tuple[Path, list[Outcome]]) -> None:
    with pytest.raises(CheckFailed, match="shards scenes"):
        check_expected(prepared[0], {"shards scenes": Counts(seen=1, kept=1)})


@pytest.mark.processes
def test_a_second_run_finds_everything_done_and_serves_nothing(
    recipe: Recipe, prepared: tuple[Path, list[Outcome]]
) -> None:
    workspace, first = prepared
    before = digests(workspace)
    with served(recipe, workspace) as resolve:
        assert resolve == {}
        again = [step.run(recipe, Place.at(workspace, resolve)) for step in steps_before_training(recipe)]
    assert all(outcome.was_done for outcome in again)
    assert not any(outcome.was_done for outcome in first)
    assert [outcome.digest for outcome in again] == [outcome.digest for outcome in first]
    assert digests(workspace) == before


@pytest.mark.processes
def test_the_whole_chain_ends_in_scores_an_audited_card_a_trace_and_a_report(
    recipe: Recipe, demo_account: Account
) -> None:
    account = demo_account
    assert {outcome.step for outcome in account.steps} >= {"train sft", "card demo", "audit demo"}
    assert account.scores["scenes-single"].questions == 8
    assert account.scores["scenes-single"].blind is not None
    assert [point[:2] for point in account.curve] == [
        (stage.name, checkpoint) for stage in recipe.stages for checkpoint in ("step-000002", "end")
    ]
    assert account.traced is not None
    assert {hit.checkpoint.run for hit in account.traced.checkpoints} <= {
        "demo/pretrain",
        "demo/multi_image",
        "demo/sft",
    }
    assert account.traced.checkpoints, "the traced picture was trained on"
    assert account.report.is_file()
    told = json.loads(json.dumps(account.to_dict(), default=lambda value: value.model_dump()))
    assert {"seconds", "digests", "counts", "eval", "report"} <= set(told)
    assert set(told["counts"]["shards scenes"]) == {"seen", "kept", "dropped"}


@pytest.mark.processes
def test_no_secret_of_the_environment_is_written_down_anywhere(demo_account: Account, demo_workspace: Path) -> None:
    kinds = {path.suffix for path in demo_workspace.rglob("*") if path.is_file()}
    assert {".tar", ".parquet", ".json", ".jsonl", ".html", ".md", ".log", ".safetensors"} <= kinds, "looked at all"
    assert list(holding([demo_workspace])) == []


def test_steps_are_chosen_by_kind_and_name(recipe: Recipe) -> None:
    assert [step.name for step in choose_steps(recipe, ("curate",), ["clips"])] == ["clips"]
    assert choose_steps(recipe, ("curate",), None) == [step for step in all_steps(recipe) if step.kind == "curate"]
    with pytest.raises(ConfigError, match="no entry 'photos'"):
        choose_steps(recipe, ("curate",), ["photos"])


def test_hosts_are_resolved_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWL3_RESOLVE", "*.owl3.test=127.0.0.1:80, a.test=127.0.0.1:81")
    assert resolve_from_environment() == {"*.owl3.test": "127.0.0.1:80", "a.test": "127.0.0.1:81"}
    monkeypatch.setenv("OWL3_RESOLVE", "127.0.0.1:80")
    with pytest.raises(ConfigError, match="HOST=ADDRESS:PORT"):
        resolve_from_environment()
