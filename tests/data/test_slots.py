"""Tiles arrive as they were put; a slot is used again only when nobody looks at it any more."""

import gc
import pickle

import numpy as np
import pytest
import torch

from owl3.data.slots import Slots


def block(value: int, tiles: int = 2) -> np.ndarray:
    return np.full((tiles, 4, 5, 3), value, dtype=np.uint8)


def sent(slots: Slots, slot: int, *blocks: np.ndarray) -> torch.Tensor:
    """What arrives of what a worker puts."""
    arrived = pickle.loads(pickle.dumps(slots.put(slot, blocks)))
    assert isinstance(arrived, torch.Tensor)
    return arrived


def test_blocks_arrive_joined_with_channels_first() -> None:
    slots = Slots(2, 1000)
    slot = slots.take()
    assert slot is not None
    tiles = sent(slots, slot, block(1), block(7, tiles=1))
    assert tiles.shape == (3, 3, 4, 5)
    assert [int(tile.unique()) for tile in tiles] == [1, 1, 7]


def test_a_slot_is_free_when_the_last_view_of_its_tiles_is_gone() -> None:
    slots = Slots(1, 1000)
    slot = slots.take()
    assert slot is not None
    tiles = sent(slots, slot, block(1))
    views = [tiles[0], tiles.numpy()[1:], tiles.permute(1, 0, 2, 3).flatten(2)]
    del tiles
    while views:
        gc.collect()
        assert slots.take() is None
        assert all((np.asarray(view) == 1).all() for view in views)
        views.pop()
    assert slots.take() == slot


def test_a_slot_that_got_no_tiles_is_free_again() -> None:
    slots = Slots(1, 1000)
    slot = slots.take()
    assert slot is not None
    assert pickle.loads(pickle.dumps(slots.put(slot, []))) is None
    assert slots.take() == slot


def test_tiles_may_outlive_the_slots_that_they_came_in() -> None:
    slots = Slots(1, 1000)
    slot = slots.take()
    assert slot is not None
    tiles = sent(slots, slot, block(9))
    del slots
    gc.collect()
    assert (tiles == 9).all()


def test_tiles_that_do_not_fit_are_refused_before_anything_is_written() -> None:
    slots = Slots(2, 1000)
    with pytest.raises(AssertionError, match="does not fit into a slot"):
        slots.put(0, [block(1, tiles=100)])
