"""A stage from recipe to manifest, on the real tiny model: hand-over, resume, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file

from owl3.cards.retract import assess, bury
from owl3.cards.runs import read_run
from owl3.cards.subjects import understand
from owl3.errors import ConfigError, InputError, Owl3Error, StaleError
from owl3.manifest import read_manifest
from owl3.planfile import Plan
from owl3.report.steps import step_pages
from owl3.train.assemble import make_model
from owl3.train.metrics import read_metrics
from owl3.train.publish import publish
from owl3.train.run import Where, preflight_stage, run_stage
from owl3.train.stages import StageConfig, TrainRecipe, finished
from train.world import STAGES, make_world, recipe


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace in which all three stages were trained. Copy it before changing it."""
    workspace = tmp_path_factory.mktemp("trained")
    made = recipe()
    make_world(workspace, made)
    for name in STAGES:
        run_stage(made, name, Where(workspace, {}))
    return workspace


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """The trained workspace, to be damaged."""
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def test_three_stages_hand_over_and_learn(trained: Path) -> None:
    manifests = [read_manifest(trained / "runs" / "tiny" / name) for name in STAGES]
    losses = [manifest.stats["loss"] for manifest in manifests]
    assert losses[-1] < losses[0] < 6  # ln(400) = 5.99: guessing
    assert [parent.name for parent in manifests[1].parents] == ["tiny/multi_image", "tiny/pretrain"]
    assert manifests[1].parents[1].digest == manifests[0].digest


def test_a_finished_stage_is_left_alone_and_known_without_starting_anything(trained: Path) -> None:
    made = recipe()
    before = read_manifest(trained / "runs" / "tiny" / "sft")
    assert finished(made, made.stage("sft"), trained) == before
    assert run_stage(made, "sft", Where(trained, {})) == before


def test_the_proof_follows_from_the_plan_alone(trained: Path) -> None:
    for name in STAGES:
        plan = Plan.open(trained / "plans" / "tiny" / name)
        proof = json.loads((trained / "runs" / "tiny" / name / "proof.json").read_text())
        for saved in proof["checkpoints"]:
            assert saved["proof"] == plan.prefix_digest(saved["step"])


def test_training_again_elsewhere_gives_the_same_digests(trained: Path, tmp_path: Path) -> None:
    made = recipe()
    make_world(tmp_path, made)
    again = run_stage(made, "pretrain", Where(tmp_path, {}))
    assert again.digest == read_manifest(trained / "runs" / "tiny" / "pretrain").digest


def test_the_export_is_a_transformers_folder_that_answers(trained: Path) -> None:
    from PIL import Image
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = trained / "runs" / "tiny" / "sft" / "model"
    processor, model = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    inputs = processor([{"role": "user", "content": "<|image|>what is it?"}], images=[Image.new("RGB", (28, 28))])
    with torch.no_grad():
        answer = model.generate(**inputs, max_new_tokens=3, do_sample=False)
    assert answer.shape[1] == inputs["input_ids"].shape[1] + 3


@pytest.mark.parametrize("where", ["model/model.safetensors", "model/config.json", "model/tokenizer.json"])
def test_one_changed_byte_of_an_export_is_refused_by_the_next_stage(copied: Path, where: str) -> None:
    shutil.rmtree(copied / "runs" / "tiny" / "multi_image")
    path = copied / "runs" / "tiny" / "pretrain" / where
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()  # it may be a hard link to a checkpoint's file
    path.write_bytes(data)
    with pytest.raises(InputError, match=rf"{where}: content differs from its manifest.*nothing may start from it"):
        run_stage(recipe(), "multi_image", Where(copied, {}))


def no_plan(workspace: Path) -> None:
    shutil.rmtree(workspace / "plans" / "tiny" / "multi_image")


def no_parent(workspace: Path) -> None:
    shutil.rmtree(workspace / "runs" / "tiny" / "pretrain")


def edited_parent(workspace: Path) -> None:
    path = workspace / "runs" / "tiny" / "pretrain" / "manifest.json"
    path.write_text(path.read_text().replace('"steps": 6', '"steps": 7'))


def other_samples(workspace: Path) -> None:
    path = workspace / "samples" / "single" / "manifest.json"
    data = json.loads(path.read_text())
    data["stats"]["tile_px"] = 56
    from owl3.manifest import Manifest

    data["digest"] = Manifest.model_validate(data).compute_digest()
    path.write_text(json.dumps(data))


def other_tokenizer(workspace: Path) -> None:
    from owl3.tokens import save_tokenizer, train_tiny

    save_tokenizer(train_tiny(["entirely other words"] * 3, 330), workspace / "tokenizers" / "words")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (no_plan, InputError, "stage 'multi_image' has no plan; run owl3 plan"),
        (no_parent, InputError, "pretrain: no such artifact; there are: sft"),
        (edited_parent, InputError, "does not match its digest.*it was edited"),
        (other_samples, StaleError, "samples/single: was made anew after"),
        (other_tokenizer, ConfigError, "was planned with the tokenizer"),
    ],
)
def test_a_stage_on_wrong_ground_is_refused_in_one_line(
    copied: Path, damage: Callable[[Path], None], error: type[Owl3Error], message: str
) -> None:
    shutil.rmtree(copied / "runs" / "tiny" / "multi_image")
    damage(copied)
    with pytest.raises(error, match=message) as caught:
        run_stage(recipe(), "multi_image", Where(copied, {}))
    assert "\n" not in str(caught.value)


def test_another_recipe_in_the_same_folder_is_refused_by_its_keys(copied: Path) -> None:
    (copied / "runs" / "tiny" / "sft" / "manifest.json").unlink()  # as if it were not finished
    with pytest.raises(ConfigError, match=r"begun with another recipe \(differs in .*stage.learning_rate.max"):
        run_stage(recipe(learning_rate={"max": 0.5}), "sft", Where(copied, {}))


def test_a_stage_resumed_from_its_checkpoint_leaves_the_same_digest(copied: Path) -> None:
    folder = copied / "runs" / "tiny" / "pretrain"
    before = read_manifest(folder)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000006")  # two steps are taken again, on weights that were loaded
    resumed = run_stage(recipe(), "pretrain", Where(copied, {}))
    assert [entry.sha256 for entry in resumed.files if not entry.volatile] == [
        entry.sha256 for entry in before.files if not entry.volatile
    ]
    assert resumed.digest == before.digest


def test_a_stage_in_bf16_learns_the_same_when_it_is_resumed(tmp_path: Path) -> None:
    """Frozen weights lie in a checkpoint in bf16, and rotary frequencies not at all."""
    made = recipe(precision="bf16", trainable=["projector", "visual_kv"], learning_rate={"max": 0.01})
    tokenizer = make_world(tmp_path, made)
    frequencies = make_model(made, made.stages[0], tokenizer, None).language_model.model.rotary_emb.inv_freq
    exact = make_model(recipe(), recipe().stages[0], tokenizer, None).language_model.model.rotary_emb.inv_freq
    assert torch.equal(frequencies, exact)
    done = run_stage(made, "pretrain", Where(tmp_path, {}))
    folder = tmp_path / "runs" / "tiny" / "pretrain"
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000006")  # two steps are taken again
    assert run_stage(made, "pretrain", Where(tmp_path, {})).digest == done.digest


def test_speed_settings_may_change_between_start_and_resume(copied: Path) -> None:
    folder = copied / "runs" / "tiny" / "sft"
    before = read_manifest(folder)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000006")  # two steps are taken again
    resumed = run_stage(recipe(micro_batch_rows=2, gradient_checkpointing=True), "sft", Where(copied, {}))
    assert resumed.stats["loss"] == pytest.approx(before.stats["loss"], rel=1e-5)
    assert resumed.stats["proof"] == before.stats["proof"]


def validated(validation: dict[str, int] | None) -> TrainRecipe:
    """The recipe with a third of every data set held out."""
    data = recipe().model_dump(mode="json")
    for stage in data["stages"]:
        stage["data"]["held_out"] = 0.34
        stage["validation"] = validation
    return TrainRecipe.model_validate(data)


def test_validation_measures_each_data_set_on_samples_that_no_stage_trains_on(tmp_path: Path) -> None:
    made = validated({"eval_steps": 3, "samples": 4})
    make_world(tmp_path, made)
    trained_on: set[str] = set()
    for name in ("pretrain", "multi_image"):
        plan = Plan.open(tmp_path / "plans" / "tiny" / name)
        assert plan.manifest.counts.dropped["held_out"] > 0
        trained_on |= {row["sample_id"] for row in plan.sample_rows(tmp_path, plan.order.tolist(), ["sample_id"])}
        run_stage(made, name, Where(tmp_path, {}))
    folder = tmp_path / "runs" / "tiny" / "multi_image"
    measured = {record["step"]: record for record in read_metrics(folder / "metrics.jsonl") if "validation" in record}
    assert sorted(measured) == [3, 6]
    assert measured[6]["validation"].keys() == {"single", "multi"}
    low, high = sorted(measured[6]["validation"].values())
    assert 0 < low <= measured[6]["validation_loss"] <= high
    for name in ("single", "multi"):
        plan = Plan.open(folder / "held-out" / name)
        held_out = {row["sample_id"] for row in plan.sample_rows(tmp_path, plan.order.tolist(), ["sample_id"])}
        assert 0 < len(held_out) <= 4
        assert not held_out & trained_on


def test_measuring_changes_nothing_that_is_learned(tmp_path: Path) -> None:
    digests = set()
    for name, settings in (("with", {"eval_steps": 2}), ("without", None)):
        made = validated(settings)
        make_world(tmp_path / name, made)
        digests.add(run_stage(made, "pretrain", Where(tmp_path / name, {})).digest)
    assert len(digests) == 1


def test_adapters_learn_in_place_of_the_language_model_and_are_merged_into_the_export(
    copied: Path, tmp_path: Path
) -> None:
    shutil.rmtree(copied / "runs" / "tiny" / "sft")
    made = recipe(lora={"rank": 2, "alpha": 4}, learning_rate={"max": 0.01})
    folder = copied / "runs" / "tiny" / "sft"
    done = run_stage(made, "sft", Where(copied, {}))
    parent, export = (
        load_file(copied / "runs" / "tiny" / stage / "model" / "model.safetensors") for stage in ("multi_image", "sft")
    )
    assert parent.keys() == export.keys()
    moved = {name for name in parent if not torch.equal(parent[name], export[name])}
    layers = [name for name in moved if name.startswith("language_model.")]
    assert {name.split(".")[-2] for name in layers} == {*made.stage("sft").lora.targets, "v_kv_proj"}  # type: ignore[union-attr]
    assert all(not name.startswith("vision_model.") for name in moved)
    for name in layers:
        if ".q_proj.weight" in name:
            assert torch.linalg.matrix_rank(export[name] - parent[name], rtol=1e-3) <= 2
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "model")
    shutil.rmtree(folder / "checkpoints" / "step-000006")  # two steps are taken again
    assert run_stage(made, "sft", Where(copied, {})).digest == done.digest


def test_the_report_shows_the_samples_of_a_step_that_stood_out(copied: Path) -> None:
    folder = copied / "runs" / "tiny" / "sft"
    (folder / "incidents").mkdir()
    (folder / "incidents" / "nonfinite-000003.json").write_text(json.dumps({"step": 3, "why": "loss is nan"}))
    run = read_run(copied, folder)
    assert run is not None
    [page] = [page for page in step_pages(copied, run, {}, 32) if page.incident]
    assert (page.step, page.incident, len(page.samples), page.not_shown) == (3, "loss is nan", 4, 0)


def test_two_runs_in_one_folder_are_refused(copied: Path) -> None:
    from filelock import FileLock

    folder = copied / "runs" / "tiny" / "sft"
    with FileLock(folder / ".lock"), pytest.raises(ConfigError, match="another run is at work"):
        run_stage(recipe(), "sft", Where(copied, {}))


def stage_with(**changes: Any) -> StageConfig:
    return recipe(**changes).stages[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainable": ["projektor"]}, "trainable"),
        ({"trainable": []}, "at least 1 item"),
        ({"trainable": ["gate", "gate"], "learning_rate": {"max": 1}}, "names a group twice"),
        ({"trainable": ["projector"], "learning_rate": {"max": 1, "groups": {"gate": {"max": 1}}}}, "does not hold"),
        ({"learning_rate": {"max": 1e-5, "min": 1e-3}}, "min 0.001 is above max"),
        ({"engine": "torch", "tensor_parallel": 2}, "needs engine: deepspeed"),
        ({"engine": "torch", "precision": "fp16"}, "precision fp16 needs engine: deepspeed"),
        ({"validation": {"eval_steps": 5}}, "give data.held_out"),
        (
            {"lora": {}, "trainable": ["visual_kv"], "learning_rate": {"max": 1}},
            "unless trainable holds language_model",
        ),
        ({"lora": {}, "engine": "deepspeed", "zero_stage": 3}, "lora goes with"),
        ({"keep_best": "scenes-single"}, "pattern"),
        ({"keep_best": "scenes-single/accuracy"}, "no effect without evaluations: give eval.tasks"),
    ],
)
def test_a_contradicting_stage_is_refused_when_it_is_read(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage_with(**changes)


def test_a_parent_must_come_before() -> None:
    data = recipe().model_dump(mode="json")
    data["stages"] = list(reversed(data["stages"]))
    with pytest.raises(ValueError, match="parent 'multi_image' is not a stage before it"):
        TrainRecipe.model_validate(data)


def test_preflight_tries_the_heaviest_steps_and_leaves_nothing_behind(copied: Path) -> None:
    report = preflight_stage(recipe(), "sft", Where(copied, {}))
    plan = Plan.open(copied / "plans" / "tiny" / "sft")
    assert max(one.tokens for one in report.tried) == plan.steps["tokens"].max()
    assert max(one.tiles for one in report.tried) == plan.steps["tiles"].max()
    assert report.tried[-1].why == "rank 0 has no picture"
    assert report.checkpoint_bytes > 3 * 4 * sum(report.parameters.values())  # fp32 weights and two moments
    folder = copied / "runs" / "tiny" / "sft"
    assert not (folder / ".preflight").exists()
    assert run_stage(recipe(), "sft", Where(copied, {})).digest == read_manifest(folder).digest


def test_what_a_killed_preflight_left_is_no_part_of_a_run(copied: Path) -> None:
    folder = copied / "runs" / "tiny" / "sft"
    before = read_manifest(folder)
    (folder / "manifest.json").unlink()
    rest = folder / ".preflight" / ".step-000001.partial" / "model"
    rest.mkdir(parents=True)
    (rest / "model.safetensors").write_bytes(b"half")
    assert run_stage(recipe(), "sft", Where(copied, {})).digest == before.digest
    assert not (folder / ".preflight").exists()


def test_preflight_warns_of_a_checkpoint_that_takes_longer_than_it_may(copied: Path) -> None:
    report = preflight_stage(recipe(), "sft", Where(copied, {}, grace_s=0.001, timeout_s=0.002))
    grace, timeout = report.warnings
    assert "--grace leaves 0 s" in grace
    assert "raise --timeout" in timeout
    assert report.hours * 3600 >= report.checkpoints * report.checkpoint_seconds


def test_preflight_refuses_a_disk_that_cannot_hold_the_checkpoints(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**6, 10**6 - 10, 10))
    with pytest.raises(InputError, match=r"checkpoints need .* GB at once and 0.0 GB are free"):
        preflight_stage(recipe(), "sft", Where(copied, {}))


def test_a_published_model_carries_a_card_that_names_its_data_and_stages(trained: Path, tmp_path: Path) -> None:
    digest = publish(trained, "tiny", "sft", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    for name in STAGES:
        assert f"| {name} | 6 | 24 |" in card
        assert read_manifest(trained / "runs" / "tiny" / name).digest[:12] in card
    for name in ("single", "multi"):
        assert read_manifest(trained / "samples" / name).digest[:12] in card
    assert digest in card
    with pytest.raises(InputError, match="exists already"):
        publish(trained, "tiny", "sft", tmp_path / "out")


def test_a_quarantined_sample_is_left_out_counted_and_named(trained: Path, tmp_path: Path) -> None:
    made = recipe()
    make_world(tmp_path, made)
    plan = Plan.open(tmp_path / "plans" / "tiny" / "pretrain")
    [row] = plan.sample_rows(tmp_path, [int(plan.order[0])], ["sample_id"])
    times = sum(int(plan.order[0]) == int(position) for position in plan.order)
    impact = assess(tmp_path, [understand(row["sample_id"], "sample_id")])
    bury(tmp_path, impact, "quarantined in a test")
    manifest = run_stage(made, "pretrain", Where(tmp_path, {}))
    assert manifest.counts.dropped == {"tombstoned": times}
    assert manifest.counts.seen == 24
    drops = pq.read_table(tmp_path / "runs" / "tiny" / "pretrain" / "drops.parquet").to_pylist()
    assert {drop["sample_id"] for drop in drops} == {row["sample_id"]}
    assert manifest.stats["weights"] != read_manifest(trained / "runs" / "tiny" / "pretrain").stats["weights"]
