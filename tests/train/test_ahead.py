"""The next step is on its way while one is computed."""

import threading
from collections.abc import Iterator

import pytest

from owl3.train.ahead import one_ahead


def test_every_step_comes_once_and_in_order() -> None:
    assert list(one_ahead(iter([1, 2, 3]))) == [1, 2, 3]
    assert list(one_ahead(iter([]))) == []


def test_the_next_step_is_fetched_while_one_is_computed_and_no_further_one() -> None:
    fetched = [threading.Event() for _ in range(4)]

    def loader() -> Iterator[int]:
        for number in range(4):
            fetched[number].set()
            yield number

    steps = one_ahead(loader())
    for number in range(3):
        assert next(steps) == number
        assert fetched[number + 1].wait(60)
        assert not any(event.is_set() for event in fetched[number + 2 :])


def test_an_error_is_raised_when_its_turn_comes_and_not_before() -> None:
    def loader() -> Iterator[int]:
        yield 1
        raise ValueError("shard 00007.tar: damaged")

    steps = one_ahead(loader())
    assert next(steps) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(steps)


def test_a_run_that_stops_half_way_lets_go_of_loader_and_thread() -> None:
    closed = threading.Event()

    def loader() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.set()

    steps = one_ahead(loader())
    next(steps)
    steps.close()
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("owl3-ahead")]
