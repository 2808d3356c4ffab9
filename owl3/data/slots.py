"""Shared memory in which picture tiles travel from worker processes to the trainer without being moved.

torch makes shared memory anew for every batch of a worker: pages are cleared, written, asked for by a round trip,
mapped again and thrown away, at a fifth of what it costs to decode a photo. Here the trainer owns slots for as long as
it loads. It gives one out with each job, and has it back when the last tensor over it is gone. While none is free,
tiles travel as torch sends them. Slots need no room in /dev/shm, which is small in containers.

Shape letters in this file: I picture tiles, H and W their sides.
"""

import math
import mmap
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

U8 = npt.NDArray[np.uint8]

_NUMBERS = count()
_OPEN: "weakref.WeakValueDictionary[int, Slots]" = weakref.WeakValueDictionary()


class Slots:
    """Pieces of memory that workers inherit when they are forked. Pages that nothing was written to take no memory, so
    a slot may be as large as the largest batch could be."""

    def __init__(self, num_slots: int, slot_bytes: int) -> None:
        self.number = next(_NUMBERS)
        self.slot_bytes = -(-max(1, slot_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
        self._memory = mmap.mmap(-1, num_slots * self.slot_bytes)
        self._free = list(range(num_slots))
        _OPEN[self.number] = self

    def take(self) -> int | None:
        """The free slot that was used last: it has its pages. None while all are out."""
        return self._free.pop() if self._free else None

    def put(self, slot: int, blocks: Sequence[U8]) -> Any:
        """Join blocks of (T, H, W, 3) in a slot; return what to send for them: it arrives as a tensor. Without any
        block it arrives as None, and the slot is free again."""
        if not blocks:
            return Parcel(self.number, slot, None)
        shape = (sum(map(len, blocks)), *blocks[0].shape[1:])
        np.concatenate(blocks, out=self._array(slot, shape).reshape(shape))
        return Parcel(self.number, slot, shape)

    def tensor(self, slot: int, shape: tuple[int, ...] | None) -> Tensor | None:
        """What was put into a slot, as (I, 3, H, W); the slot is free again when it and all views of it are gone."""
        if shape is None:
            self._free.append(slot)
            return None
        array = self._array(slot, shape)
        weakref.finalize(array, self._free.append, slot).atexit = False
        return torch.from_numpy(array.reshape(shape)).permute(0, 3, 1, 2)  # views, which hold on to `array`

    def _array(self, slot: int, shape: tuple[int, ...]) -> U8:
        size = math.prod(shape)
        assert size <= self.slot_bytes, f"{shape} does not fit into a slot of {self.slot_bytes} bytes"
        return np.frombuffer(self._memory, dtype=np.uint8, count=size, offset=slot * self.slot_bytes)


@dataclass(frozen=True, slots=True)
class Parcel:
    """What a worker sends in place of the tiles it put into a slot: it arrives as their tensor."""

    slots: int
    slot: int
    shape: tuple[int, ...] | None

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, (self.slots, self.slot, self.shape)


def _arrived(slots: int, slot: int, shape: tuple[int, ...] | None) -> Tensor | None:
    return _OPEN[slots].tensor(slot, shape)
