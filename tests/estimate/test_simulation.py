"""A simulated curation run: nothing is lost, failures cost time, and without any the run is as long as its work."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from owl3.estimate.simulation import Course, Run, simulate

CALM = Run(
    shards=640,
    machines=8,
    slots=4,
    shard_s=600.0,
    spread=0.0,
    tail_s=0.0,
    shard_failure=0.0,
    losses_per_s=0.0,
    restart_s=600.0,
)


def test_a_calm_run_takes_exactly_its_work() -> None:
    course = simulate(CALM)
    assert course.hours == pytest.approx(course.ideal_hours) == pytest.approx(640 * 600 / 32 / 3600)
    assert course.lost_machines == course.failed_shards == 0
    assert course.redone_share == 0


@pytest.mark.parametrize(
    "trouble",
    [{"losses_per_s": 1 / 7200}, {"shard_failure": 0.2}, {"spread": 0.8}, {"tail_s": 60.0}],
    ids=lambda trouble: next(iter(trouble)),
)
def test_each_trouble_makes_the_run_longer(trouble: dict[str, float]) -> None:
    course = simulate(dataclasses.replace(CALM, **trouble))
    assert course.hours > simulate(CALM).hours


@given(
    st.integers(1, 60),
    st.integers(1, 5),
    st.integers(1, 3),
    st.floats(0, 1),
    st.sampled_from([0.0, 1e-4, 1e-3]),
    st.integers(0, 9),
)
def test_every_shard_is_done_whatever_fails(
    shards: int, machines: int, slots: int, failing: float, losses: float, seed: int
) -> None:
    changes = {"shards": shards, "machines": machines, "slots": slots, "shard_failure": failing, "losses_per_s": losses}
    run = dataclasses.replace(CALM, spread=0.5, tail_s=10.0, **changes)
    course = simulate(run, seed)
    assert 0 < course.hours_to_95 <= course.hours
    assert course.tail_1_hours <= course.tail_hours + 1e-9
    assert course.hours >= course.ideal_hours - 1e-9


def test_the_same_seed_gives_the_same_course() -> None:
    run = dataclasses.replace(CALM, spread=0.4, losses_per_s=1e-4, shard_failure=0.05)
    first, again, other = simulate(run, 1), simulate(run, 1), simulate(run, 2)
    assert isinstance(first, Course)
    assert first == again != other
