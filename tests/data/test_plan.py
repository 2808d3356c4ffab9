"""The order is a pure function of indexes, config and seed; quotas are exact; packing loses nothing."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from owl3.config import validate
from owl3.data.plan import PlanConfig, make_plan
from owl3.errors import ConfigError, InputError, StaleError
from owl3.idhash import id_words
from owl3.ledger import TOMBSTONES, tombstones_path
from owl3.manifest import Counts, read_manifest, write_manifest
from owl3.planfile import Plan
from owl3.samples import short_hash
from tests.data.conftest import MakeSamples, tree_digest, write_indexes


def config(*names: str, **changes: object) -> PlanConfig:
    data = {
        "mixture": {"datasets": [{"name": name} for name in names], "max_epochs": 100},
        "global_batch_size": 8,
        "steps": 10,
        "max_tokens": 120,
        "max_tiles": 6,
        "seed": 3,
    } | changes
    return validate({key: value for key, value in data.items() if value is not None}, PlanConfig, where="test")


def planned(workspace: Path, cfg: PlanConfig, name: str = "run") -> Plan:
    make_plan(cfg, workspace, run_name=name, stage="pretrain")
    return Plan.open(workspace / "plans" / name / "pretrain")


def planned_ids(plan: Plan, workspace: Path) -> list[str]:
    positions = plan.order.tolist()
    return [row["sample_id"] for row in plan.sample_rows(workspace, positions, ["sample_id"])]


def test_planning_twice_gives_the_same_bytes(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 30)
    make_samples("pages", 20, images=(0, 4))
    cfg = config("photos", "pages")
    one, two = planned(workspace, cfg, "one"), planned(workspace, cfg, "two")
    assert tree_digest(one.folder) == tree_digest(two.folder)


def test_a_finished_plan_is_not_made_again(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 30)
    first = make_plan(config("photos"), workspace, run_name="run", stage="pretrain")
    assert make_plan(config("photos"), workspace, run_name="run", stage="pretrain") == first
    with pytest.raises(StaleError, match="differs in seed"):
        make_plan(config("photos", seed=4), workspace, run_name="run", stage="pretrain")


def test_every_step_holds_its_rows_within_the_limits(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("pages", 40, images=(0, 4), words=(1, 40))
    plan = planned(workspace, config("pages"))
    index = plan.sample_rows(workspace, plan.order.tolist(), ["text_tokens", "images", "trained_tokens"])
    for step in range(plan.num_steps):
        costs = index[step * 8 : step * 8 + 8]
        rows = plan.rows(step)
        assert sorted(np.concatenate(rows).tolist()) == list(range(8))
        for slots, tokens, tiles in zip(rows, plan.row_tokens(step), plan.row_tiles(step), strict=True):
            assert sum(costs[slot]["text_tokens"] for slot in slots) == tokens <= 120
            assert sum(costs[slot]["images"] for slot in slots) == tiles <= 6
        assert plan.trained_tokens(step) == sum(cost["trained_tokens"] for cost in costs)


def test_an_epoch_shows_every_sample_once_and_epochs_differ(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 24)
    plan = planned(workspace, config("photos", steps=6))
    first, second = plan.order[:24], plan.order[24:]
    assert sorted(first) == sorted(second) == list(range(24))
    assert first.tolist() != second.tolist()


def test_the_order_goes_by_ids_and_not_by_places(workspace: Path, make_samples: MakeSamples, tmp_path: Path) -> None:
    make_samples("photos", 30, per_shard=7)
    here = planned_ids(planned(workspace, config("photos")), workspace)
    elsewhere = tmp_path / "elsewhere"
    workspace.rename(elsewhere)
    workspace.mkdir()
    make_samples("photos", 30, per_shard=11)
    assert planned_ids(planned(workspace, config("photos")), workspace) == here


def test_a_retraction_changes_nothing_before_the_first_tainted_step(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 40)
    make_samples("pages", 40)
    cfg = config("photos", "pages", max_tokens=400)
    before = planned(workspace, cfg, "before")
    ids = planned_ids(before, workspace)
    gone = ids[37]
    row = {"sample_id": gone, "matched_by": "sample_id", "matched_value": gone, "reason": "asked", "time": ""}
    pq.write_table(pa.Table.from_pylist([row], schema=TOMBSTONES), tombstones_path(workspace))
    after = planned(workspace, cfg, "after")
    kept = planned_ids(after, workspace)
    tainted = before.steps_of(before.find(workspace, gone))[0]
    assert tainted == ids.index(gone) // 8
    assert kept[: tainted * 8] == ids[: tainted * 8]
    assert gone not in kept
    assert after.prefix_digest(tainted) == before.prefix_digest(tainted)
    assert after.prefix_digest(tainted + 1) != before.prefix_digest(tainted + 1)
    assert after.manifest.counts.dropped["tombstoned"] == 1


def test_samples_that_fit_no_row_are_counted(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("pages", 40, images=(0, 9), words=(1, 200))
    plan = planned(workspace, config("pages", steps=2))
    counts = plan.manifest.counts
    assert counts.seen == 40
    assert counts.kept == 16
    assert counts.dropped["over_row_length"] > 0
    assert counts.dropped["over_row_images"] > 0


def test_a_cap_limits_the_samples_used(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 40)
    datasets = {"datasets": [{"name": "photos", "max_samples": 16, "max_epochs": 5}]}
    plan = planned(workspace, config(mixture=datasets))
    assert len(plan.seen_before(plan.num_steps)) == 16
    assert plan.manifest.counts.dropped == {"over_cap": 24}


def test_epochs_give_the_number_of_steps(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 30)
    assert planned(workspace, config("photos", steps=None, epochs=2)).num_steps == 60 // 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 1}, "either steps or epochs"),
        ({"steps": None}, "either steps or epochs"),
        ({"mixture": {"datasets": [{"name": "photos"}, {"name": "photos"}]}}, "listed twice"),
        ({"mixture": {"datasets": [{"name": "photos", "weight": 60}]}}, "add up to 100"),
        ({"mixture": {"datasets": [{"name": "photos", "weight": 60}, {"name": "pages"}]}}, "'pages' has no weight"),
        ({"mixture": {"datasets": [{"name": "photos"}], "temprature": 2}}, "did you mean 'temperature'"),
    ],
)
def test_wrong_configs_say_what_to_do(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config("photos", **changes)


def test_a_missing_dataset_is_named_with_what_it_needs(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 10)
    datasets = [{"name": "photos"}, {"name": "coyo", "needs": "the COYO-700M URL table"}]
    with pytest.raises(ConfigError, match=r"1 of 2 datasets .* coyo \(the COYO-700M URL table\)"):
        planned(workspace, config(mixture={"datasets": datasets}))


def test_more_steps_than_the_data_give_is_refused(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 30)
    with pytest.raises(ConfigError, match=r"'photos': the mixture draws 80 samples from 30 usable ones, 2.67 epochs"):
        planned(workspace, config(mixture={"datasets": [{"name": "photos"}]}))


def test_a_weight_for_an_empty_dataset_is_refused(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 10)
    make_samples("pages", 10, words=(300, 300))
    with pytest.raises(ConfigError, match="'pages' has no usable sample"):
        planned(workspace, config("photos", "pages"))


def test_datasets_costed_with_other_releases_are_refused(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 10)
    make_samples("pages", 10, release="240728")
    with pytest.raises(InputError, match="costed with different settings: release"):
        planned(workspace, config("photos", "pages"))


def test_a_truncated_tar_and_a_missing_one_are_named(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 10)
    tar = workspace / "samples" / "photos" / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"00001\.tar: has \d+ bytes, its manifest says"):
        planned(workspace, config("photos"))
    tar.unlink()
    with pytest.raises(InputError, match=r"00001\.tar: is missing"):
        planned(workspace, config("photos"))


def test_ids_become_numbers_and_back() -> None:
    ids = [short_hash(str(i)) for i in range(5)]
    words = id_words(pa.array(ids))
    assert [f"{int(high):016x}{int(low):016x}" for high, low in words] == ids
    assert id_words(pa.array(ids)[2:4]).tolist() == words[2:4].tolist()
    with pytest.raises(ValueError, match="hex"):
        id_words(pa.array(["g" * 32]))


def test_a_checkpoint_goes_on_only_with_a_plan_that_agrees(workspace: Path, make_samples: MakeSamples) -> None:
    make_samples("photos", 40)
    cfg = config("photos", steps=250, max_tokens=400)
    old = planned(workspace, cfg, "old")
    longer = planned(workspace, cfg.model_copy(update={"steps": 300}), "longer")
    other = planned(workspace, cfg.model_copy(update={"seed": 4}), "other")
    proof = old.proof(230)
    old.check_proof(proof)
    longer.check_proof(proof)
    with pytest.raises(StaleError, match=r"checkpoint at step 230 .* part after step 0 and before step 100"):
        other.check_proof(proof)
    assert old.parting_step(longer) is None
    assert old.parting_step(other) == 0


def test_where_two_plans_part_is_named(workspace: Path) -> None:
    write_indexes(workspace, "web", 2000, per_shard=500)
    cfg = config("web", steps=240, max_tokens=400)
    old = planned(workspace, cfg, "old")
    gone = planned_ids(old, workspace)[8 * 130]
    row = {"sample_id": gone, "matched_by": "sample_id", "matched_value": gone, "reason": "asked", "time": ""}
    pq.write_table(pa.Table.from_pylist([row], schema=TOMBSTONES), tombstones_path(workspace))
    new = planned(workspace, cfg, "new")
    assert old.parting_step(new) == 130
    new.check_proof(old.proof(130))
    with pytest.raises(StaleError, match=r"checkpoint at step 240 .* part after step 100 and before step 200"):
        new.check_proof(old.proof(240))


@pytest.mark.parametrize("cap", [None, 30])
def test_a_purge_changes_nothing_before_the_first_tainted_step(workspace: Path, cap: int | None) -> None:
    """Taken out of the tar, or passed over as a tombstone: the plan is the same, and shares do not move."""
    write_indexes(workspace, "web", 40, per_shard=10)
    write_indexes(workspace, "pages", 25, per_shard=10)
    datasets = [{"name": "web", "max_samples": cap, "max_epochs": 9}, {"name": "pages", "max_epochs": 9}]
    cfg = config(mixture={"datasets": datasets, "temperature": 1.5}, steps=None, epochs=2, max_tokens=400, max_tiles=9)
    before = planned(workspace, cfg, "before")
    ids = planned_ids(before, workspace)
    web = {row["sample_id"] for row in pq.read_table(workspace / "samples/web/00001.parquet").to_pylist()}
    draw, gone = next((draw, i) for draw, i in enumerate(ids[20:], start=20) if i in web and i not in ids[:20])
    purge(workspace / "samples" / "web", gone)
    after = planned(workspace, cfg, "after")
    assert after.num_steps == before.num_steps
    assert after.prefix_digest(draw // 8) == before.prefix_digest(draw // 8)
    assert planned_ids(after, workspace)[: draw // 8 * 8] == ids[: draw // 8 * 8]


def purge(folder: Path, sample_id: str) -> None:
    """Turn a kept row into a drop, as `owl3 retract --purge` does."""
    path = folder / "00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        if row["sample_id"] == sample_id:
            row |= {"decision": "dropped", "reason": "tombstoned", "position": None, "json_offset": None, "tiles": None}
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    manifest = read_manifest(folder)
    counts = Counts(seen=manifest.counts.seen, kept=manifest.counts.kept - 1, dropped={"tombstoned": 1})
    retired = folder.parents[1] / "retired" / "samples" / folder.name / manifest.digest
    retired.mkdir(parents=True)
    for index in folder.glob("*.parquet"):
        whole = table if index == path else pq.read_table(index)
        pq.write_table(whole.select(["sample_id", "decision", "position"]), retired / index.name)
    write_manifest(folder, kind="samples", name=folder.name, counts=counts, stats=manifest.stats)
