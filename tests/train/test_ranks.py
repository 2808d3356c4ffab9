"""Several real processes over gloo: any split gives the same curve, and any world size goes on from any other.

Ranks are expensive to start, so one group of processes takes many runs.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from owl3.train.stages import Precision
from train.model_ranks import errors_of_a_long_step, two_steps
from train.ranks import Ranks, run
from train.toy_ranks import consolidate, take_all, take_with_trouble

pytestmark = pytest.mark.processes


HALVES: tuple[Precision, ...] = ("bf16", "fp16")


def take(size: int, *runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Let `size` ranks take runs; return their results after seeing that all ranks agree."""
    results = run(take_all, [list(runs)], size)
    assert all(result == results[0] for result in results), "ranks saw different losses"
    first: list[dict[str, Any]] = results[0]
    return first


def torch_run(folder: Path, micro_batches: int, **settings: Any) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "micro_batches": micro_batches,
        "stage": {"engine": "torch", "ema_decay": 0.5},
        **settings,
    }


def zero_run(
    folder: Path, zero_stage: int, micro_batches: int = 2, precision: Precision = "fp32", **settings: Any
) -> dict[str, Any]:
    stage = {"engine": "deepspeed", "zero_stage": zero_stage, "ema_decay": 0.5, "precision": precision}
    return {"folder": str(folder), "micro_batches": micro_batches, "stage": stage, **settings}


@dataclass
class Groups:
    """What 8, 4, 2 and 1 ranks did, each group started once."""

    curves: dict[int, dict[str, Any]]
    torch_legs: list[dict[str, Any]]
    zero: list[dict[str, Any]]
    zero_legs: list[dict[str, Any]]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    folder = tmp_path_factory.mktemp("ranks")

    def curve(size: int) -> dict[str, Any]:
        return torch_run(folder / f"split-{size}", 8 // size)

    def torch_leg(stop_after: int | None) -> dict[str, Any]:
        return torch_run(folder / "moved", 1, stop_after=stop_after)

    eight = take(8, curve(8))
    four = take(4, curve(4), torch_leg(2))
    two = take(
        2,
        curve(2),
        torch_leg(2),
        *(zero_run(folder / f"zero-{stage}", stage) for stage in (1, 2, 3)),
        zero_run(folder / "zero", 1, stop_after=2),
        zero_run(folder / "zero", 3, stop_after=2),
    )
    one = take(1, curve(1), torch_leg(None), zero_run(folder / "zero", 2))
    return Groups(
        curves={8: eight[0], 4: four[0], 2: two[0], 1: one[0]},
        torch_legs=[four[1], two[1], one[1]],
        zero=two[2:5],
        zero_legs=[*two[5:7], one[2]],
    )


def test_eight_rows_give_one_curve_as_1x8_2x4_4x2_and_8x1(groups: Groups) -> None:
    """Ranks x micro-batches of one row each. fp32 sums in another order: a last bit, amplified by six AdamW steps."""
    for size in (2, 4, 8):
        assert groups.curves[size]["losses"] == pytest.approx(groups.curves[1]["losses"], rel=1e-5)
        assert groups.curves[size]["norms"] == pytest.approx(groups.curves[1]["norms"], rel=1e-4)


def test_a_run_saved_at_4_goes_on_at_2_and_1_with_its_optimizer(groups: Groups) -> None:
    assert [leg["started_at"] for leg in groups.torch_legs] == [0, 2, 4]
    moved = [loss for leg in groups.torch_legs for loss in leg["losses"]]
    assert moved == pytest.approx(groups.curves[1]["losses"], rel=1e-5)
    assert groups.torch_legs[2]["norms"] == pytest.approx(groups.curves[1]["norms"][4:], rel=1e-4)


def test_zero_1_2_and_3_learn_what_plain_torch_learns(groups: Groups) -> None:
    for leg in groups.zero:
        assert leg["losses"] == pytest.approx(groups.curves[1]["losses"], rel=1e-5)
        assert leg["norms"] == pytest.approx(groups.curves[1]["norms"], rel=1e-4)


def test_zero_stages_go_on_from_one_another_at_another_world_size(groups: Groups) -> None:
    """ZeRO-1 on two ranks, ZeRO-3 on two, ZeRO-2 on one."""
    assert [leg["started_at"] for leg in groups.zero_legs] == [0, 2, 4]
    moved = [loss for leg in groups.zero_legs for loss in leg["losses"]]
    assert moved == pytest.approx(groups.curves[1]["losses"], rel=1e-5)


def test_validation_loss_is_the_same_however_held_out_rows_are_shared(groups: Groups) -> None:
    expected = groups.curves[1]["validation"]
    for leg in (*groups.curves.values(), *groups.zero, groups.zero_legs[-1]):
        assert leg["validation"] == pytest.approx(expected, rel=1e-3)


def test_averaged_weights_are_the_same_under_zero_and_follow_a_run_to_another_world_size(groups: Groups) -> None:
    expected = groups.curves[1]["averages"]
    for leg in (*groups.zero, groups.zero_legs[-1], groups.torch_legs[-1]):
        assert leg["averages"] == pytest.approx(expected, rel=1e-4)


def test_our_model_file_is_whole_where_deepspeeds_own_leaves_frozen_weights_out(tmp_path: Path) -> None:
    [held] = run(consolidate, [tmp_path], 1)
    assert held["ours"] == held["all"]
    assert held["all"] - held["theirs"] == {name for name in held["all"] if name.startswith("vision_model.")}


def test_what_is_not_finite_on_one_rank_stops_all_of_them_before_the_step(tmp_path: Path) -> None:
    """A loss (row 3 is rank 1's), or a gradient alone. Ranks say the same; the checkpoint before stays the last."""
    engines = ("torch", "zero-1", "zero-2", "zero-3", "bf16", "fp16")

    def runs(why: str, **trouble: int) -> list[dict[str, Any]]:
        zero = [zero_run(tmp_path / why / f"zero-{stage}", stage, **trouble) for stage in (1, 2, 3)]
        half = [zero_run(tmp_path / why / kind, 1, precision=kind, **trouble) for kind in HALVES]
        return [torch_run(tmp_path / why / "torch", 2, **trouble), *zero, *half]

    results = take(2, *runs("loss", poison=3), *runs("gradient", bad_rank=1))
    for name, bad_loss, bad_gradient in zip(engines, results[:6], results[6:], strict=True):
        assert "step 3: loss is" in bad_loss["error"]
        assert "no rank took the step. Samples: sample-3-3, sample-3-7 " in bad_loss["error"]
        assert "step 3: gradient norm is" in bad_gradient["error"]
        assert "no rank took the step. Samples: sample-3-0" in bad_gradient["error"]
        assert ("fp16 is too narrow" in bad_gradient["error"]) == (name == "fp16")
        for why in ("loss", "gradient"):
            assert [path.name for path in (tmp_path / why / name / "checkpoints").iterdir()] == ["step-000002"]


def test_half_precision_learns_the_same_and_resumes_to_the_bit(tmp_path: Path) -> None:
    """To what 8 bits (bf16) or 11 (fp16) of mantissa allow; a resumed run to the last bit.

    fp16's loss scale begins too high for the toy: steps are computed again until it fits, and none is skipped.
    """
    kinds: list[tuple[Precision, int]] = [("bf16", 1), ("bf16", 2), ("fp16", 1), ("fp16", 3)]

    def runs(name: str, **settings: Any) -> list[dict[str, Any]]:
        return [
            zero_run(tmp_path / name / f"{kind}-{stage}", stage, precision=kind, **settings) for kind, stage in kinds
        ]

    exact, *found = take(2, torch_run(tmp_path / "exact", 2), *runs("whole"), *runs("resumed", stop_after=3))
    again = take(2, *runs("resumed"))
    whole, begun = found[: len(kinds)], found[len(kinds) :]
    for (kind, _), one, first, second in zip(kinds, whole, begun, again, strict=True):
        assert one["losses"] == pytest.approx(exact["losses"], rel=0.05 if kind == "bf16" else 0.01)
        assert first["losses"] + second["losses"] == one["losses"]
        assert second["state"] == one["state"]
        assert first["scales"] + second["scales"] == one["scales"]
        if kind == "fp16":
            assert one["redone"][0] > 0
            assert all(later == earlier / 2**n for earlier, later, n in halvings(one))


def test_gradients_of_bf16_are_added_up_in_fp32_over_micro_batches_and_ranks() -> None:
    """Added up in bf16, the sum of 16 would be off by 0.4 %, that of 64 by 0.8 %."""
    for size in (1, 2):
        assert max(run(errors_of_a_long_step, [[1, 2, 3]], size)[0]) < 1e-6


def halvings(run: dict[str, Any]) -> list[tuple[float, float, int]]:
    """Loss scale before and after each step that followed another, and how often it was computed again."""
    return list(zip(run["scales"], run["scales"][1:], run["redone"][1:], strict=False))


WAYS: dict[str, tuple[int, dict[str, Any]]] = {
    "2 x 2 ranks": (4, {"tensor_parallel": 2}),
    "static_gate": (2, {"tensor_parallel": 2, "fusion": "static_gate"}),
    "joint, checkpointed": (2, {"tensor_parallel": 2, "fusion": "joint", "gradient_checkpointing": True}),
    "ZeRO-3": (2, {"zero_stage": 3}),
    "ZeRO-3, joint, checkpointed": (2, {"zero_stage": 3, "fusion": "joint", "gradient_checkpointing": True}),
    "ZeRO-3, concat": (2, {"zero_stage": 3, "fusion": "concat", "trainable": ["projector", "language_model"]}),
    "ZeRO-2, adapters": (2, {"zero_stage": 2, "lora": {"rank": 2}, "gradient_checkpointing": True}),
    "ZeRO-2, state on the CPU": (2, {"zero_stage": 2, "offload": {"offload_optimizer": {"device": "cpu"}}}),
}
"""Ranks, and how they share the model."""


@pytest.mark.parametrize("way", WAYS)
def test_ranks_that_share_the_model_learn_what_one_learns_with_plain_torch(way: str) -> None:
    """Loss, gradient norm, validation, and after two steps every weight and moment.

    Also where a rank has no picture at all, and fewer tokens to learn from: all have to run the same modules.
    """
    size, settings = WAYS[way]
    plain = {"engine": "torch", "tensor_parallel": 1, "zero_stage": 1, "gradient_checkpointing": False}
    [alone] = run(two_steps, [{**settings, **plain}], 1)
    shared = run(two_steps, [settings], size)
    assert all(rank["losses"] == shared[0]["losses"] for rank in shared)
    assert shared[0]["losses"] == pytest.approx(alone["losses"], rel=1e-5)
    assert shared[0]["norms"] == pytest.approx(alone["norms"], rel=1e-4)
    assert shared[0]["shapes"] == alone["shapes"]
    assert shared[0]["loads_back"]
    # AdamW's first steps are ±rate whatever the gradient's size: near 0 its sign is noise, hence an absolute tolerance.
    assert shared[0]["sums"] == pytest.approx(alone["sums"], rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("precision", HALVES)
def test_a_model_that_is_split_learns_in_half_precision_too(precision: Precision) -> None:
    """Two groups of two ranks; bf16 has 8 bits of mantissa."""
    [exact] = run(two_steps, [{"engine": "torch"}], 1)
    shared = run(two_steps, [{"tensor_parallel": 2, "precision": precision}], 4)
    assert all(rank["losses"] == shared[0]["losses"] for rank in shared)
    assert shared[0]["losses"] == pytest.approx(exact["losses"], rel=1e-3)
    assert shared[0]["norms"] == pytest.approx(exact["norms"], rel=0.02)
    assert shared[0]["shapes"] == exact["shapes"]
    assert shared[0]["loads_back"]


def test_a_rank_that_fails_or_dies_ends_the_others_with_its_name(tmp_path: Path) -> None:
    failed = run(take_with_trouble, [tmp_path / "fail", "fail"], 2)
    assert failed[1] == "shard 00007.tar: damaged"
    assert "rank 1 stopped in step 3, phase load (on its own)" in failed[0]
    assert "InputError: shard 00007.tar: damaged; run again to resume" in failed[0]
    died = run(take_with_trouble, [tmp_path / "die", "die"], 2)
    assert died[1] is None
    assert "another rank died without a word" in died[0]


def test_a_rank_that_stalls_ends_all_of_them_within_the_deadline(tmp_path: Path) -> None:
    with Ranks(take_with_trouble, [tmp_path, "stall", 3.0], 2) as ranks:
        waiting, stalled = ranks.results()
        for process in ranks.processes:
            process.join()
        assert (stalled, ranks.processes[1].exitcode) == (None, 3)
    note = json.loads((tmp_path / "ranks" / "rank-00001.json").read_text())
    assert (note["step"], note["phase"]) == (3, "load")
    assert re.fullmatch(r"no progress for \d+ s \(--timeout\)", note["why"])
    # The one that waits meets its own deadline, or the end of the other: whichever the machine lets come first.
    if waiting is None:
        assert ranks.processes[0].exitcode == 3
        note = json.loads((tmp_path / "ranks" / "rank-00000.json").read_text())
        assert note["phase"] in ("compute", "exchange")
        assert note["samples"][0] == "sample-3-0"
    else:
        assert "rank 1 stopped in step 3, phase load (on its own)" in waiting
