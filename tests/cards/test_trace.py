"""From anything to everything it touched, and nothing else."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from owl3.cards import runs
from owl3.cards.subjects import understand
from owl3.cards.trace import trace
from owl3.errors import InputError
from owl3.planfile import Plan
from owl3.samples import url_sample_id

from .conftest import DROPS, NUM_URLS, caption, picture, url
from .forge import edit_rows, reseal


def _id(number: int) -> str:
    return url_sample_id(url(number), caption(number))


def test_a_url_goes_from_its_row_to_the_checkpoints(workspace: Path, datacards: Path) -> None:
    found = trace(workspace, understand(url(3)), datacards)
    assert [row["sample_id"] for row in found.urls] == [_id(3)]
    assert found.built_total == 1
    assert _id(3) in found.built[0]["parents"]
    assert {hit.plan for hit in found.plans} == {"toy/pretrain", "toy/sft"}
    assert {hit.checkpoint.run for hit in found.checkpoints} == {"toy/pretrain", "toy/sft"}
    assert [card["name"] for card in found.cards] == ["demo/1.0.0"]
    assert {result.title for result in found.evaluations} == {"scenes-single"}


@pytest.mark.parametrize(
    "text",
    [url(3), _id(3), hashlib.sha256(picture(3)).hexdigest()],
    ids=["url", "sample id", "sha256"],
)
def test_one_picture_is_one_answer_however_it_is_named(workspace: Path, text: str) -> None:
    found = trace(workspace, understand(text))
    assert [row["sample_id"] for row in found.urls] == [_id(3)]
    assert found.found


def test_a_picture_file_is_found_by_its_looks(workspace: Path, tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "copy.jpg"
    path.write_bytes(picture(3))
    assert _id(3) in {row["sample_id"] for row in trace(workspace, understand(str(path))).urls}
    with Image.open(path) as image:
        image.resize((image.width * 2, image.height * 2)).save(tmp_path / "bigger.jpg", quality=60)
    assert _id(3) in {row["sample_id"] for row in trace(workspace, understand(str(tmp_path / "bigger.jpg"))).urls}


def test_a_domain_means_its_subdomains_and_no_look_alikes(workspace: Path) -> None:
    assert trace(workspace, understand("example.org")).urls_total == NUM_URLS // 5
    assert trace(workspace, understand("birds.example.org")).urls_total == NUM_URLS // 5
    assert trace(workspace, understand("rds.example.org")).urls_total == 0


def test_a_dropped_url_is_told_with_its_reason_and_reached_nothing(workspace: Path) -> None:
    found = trace(workspace, understand(url(7)))
    assert [(row["decision"], row["reason"]) for row in found.urls] == [("dropped", "not_found")]
    assert not found.found
    assert not found.plans


def test_a_licence_is_traced(workspace: Path) -> None:
    found = trace(workspace, understand("CC-BY-4.0"))
    assert found.subject.what == "licence"
    assert found.urls_total == NUM_URLS // 2


def test_what_is_nowhere_is_found_nowhere(workspace: Path) -> None:
    assert not trace(workspace, understand("http://elsewhere.example.org/a.jpg")).found


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, NUM_URLS - 1))
def test_what_goes_in_comes_out_at_the_steps_of_the_plan(golden: Path, number: int) -> None:
    """Conservation from URL to checkpoint: the steps traced are exactly the steps whose samples hold the URL."""
    workspace = golden / "workspace"
    found = trace(workspace, understand(url(number)))
    steps = {hit.plan: hit.steps for hit in found.plans}
    for name in ("toy/pretrain", "toy/sft"):
        plan = Plan.open(workspace / "plans" / name)
        expected = [
            step
            for step in range(plan.num_steps)
            if any(
                _id(number) in row["parents"]
                for row in plan.sample_rows(workspace, plan.positions(step).tolist(), ["parents"])
            )
        ]
        assert steps.get(name, []) == expected
    for hit in found.checkpoints:
        own = [step for step in steps.get(hit.checkpoint.run, []) if step < hit.checkpoint.step]
        assert hit.num_steps == len(own)
        assert own or hit.inherited_from
    assert (number in DROPS) <= (not found.found)


def test_a_checkpoint_before_the_first_tainted_step_is_clean(workspace: Path) -> None:
    found = trace(workspace, understand(url(3)))
    first = {hit.plan: hit.first for hit in found.plans}["toy/pretrain"]
    tainted = {hit.checkpoint.step for hit in found.checkpoints if hit.checkpoint.run == "toy/pretrain"}
    for checkpoint in runs.read_run(workspace, workspace / "runs" / "toy" / "pretrain").checkpoints:  # type: ignore[union-attr]
        assert (checkpoint.step in tainted) == (checkpoint.step > first)


def test_a_checkpoint_is_traced_back_to_its_urls(workspace: Path) -> None:
    found = trace(workspace, understand("toy/sft@1"))
    assert found.subject.what == "checkpoint"
    assert [hit.plan for hit in found.plans] == ["toy/sft", "toy/pretrain"]
    # The stage before saw every built sample, each of three pictures.
    assert found.built_total == 8
    assert found.urls_kept == 24


def test_a_step_is_traced_both_ways(workspace: Path) -> None:
    found = trace(workspace, understand("toy/pretrain:3"))
    plan = Plan.open(workspace / "plans" / "toy" / "pretrain")
    rows = plan.sample_rows(workspace, plan.positions(3).tolist(), ["sample_id", "parents"])
    assert set(found.plans[0].sample_ids) == {row["sample_id"] for row in rows}
    assert found.built_total == len({row["sample_id"] for row in rows})
    assert found.urls_kept == len({parent for row in rows for parent in row["parents"]})
    pretrain = [hit.checkpoint.step for hit in found.checkpoints if hit.checkpoint.run == "toy/pretrain"]
    assert pretrain == [4, 6, 8]
    assert {hit.inherited_from for hit in found.checkpoints if hit.checkpoint.run == "toy/sft"} == {"toy/pretrain"}


@pytest.mark.parametrize("text", ["toy/nowhere@3", "toy/sft@99", "toy/sft:99", "toy/nowhere:1"])
def test_a_checkpoint_or_step_that_is_not_there_is_an_error(workspace: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"no run|steps|no such artifact"):
        trace(workspace, understand(text))


def test_a_run_under_way_is_traced_by_its_newest_checkpoint(workspace: Path) -> None:
    folder = workspace / "runs" / "toy" / "sft"
    for name in ("manifest.json", "proof.json"):
        (folder / name).unlink()
    run = runs.read_run(workspace, folder)
    assert run is not None
    assert [checkpoint.step for checkpoint in run.checkpoints] == [1, 2]


@pytest.mark.parametrize("text", ["EXAMPLE.org", "*.example.org", "example.org."])
def test_a_domain_is_understood_as_people_write_it(text: str, workspace: Path) -> None:
    assert trace(workspace, understand(text)).urls_total == NUM_URLS // 5


def test_a_domain_in_other_letters_is_the_one_in_ascii() -> None:
    subject = understand("bücher.example")
    assert (subject.what, subject.values) == ("domain", ("xn--bcher-kva.example",))


@pytest.mark.parametrize("text", ["http://[::1", "http://a.example:x/", f"http://{'a' * 70}.example/"])
def test_what_only_looks_like_a_url_is_said_to_be_none(text: str) -> None:
    with pytest.raises(InputError, match="not a URL"):
        understand(text)
    with pytest.raises(InputError, match="not a domain"):
        understand(f"{'ä' * 70}.example")


def test_a_file_that_no_decoder_takes_is_traced_by_its_bytes(workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"no picture")
    found = trace(workspace, understand(str(tmp_path / "clip.mp4")))
    assert (found.subject.what, found.urls_total) == ("image", 0)


def test_a_perceptual_hash_that_is_none_is_no_exception(workspace: Path, tmp_path: Path) -> None:
    edit_rows(workspace / "shards" / "tiny" / "00000.parquet", lambda rows: rows[5].update(phash="no hash"))
    reseal(workspace / "shards" / "tiny")
    (tmp_path / "copy.jpg").write_bytes(picture(3))
    assert _id(3) in {row["sample_id"] for row in trace(workspace, understand(str(tmp_path / "copy.jpg"))).urls}
