"""Rows become a micro-batch: exactly the tensors that the model's forward takes.

    input_ids     (B, S) int64   samples of a row side by side; padded on the right with the end-of-text id
    segment_ids   (B, S) int64   1, 2, … per packed sample; 0 is padding
    position_ids  (B, S) int64   restart at 0 in every packed sample
    labels        (B, S) int64   the token where trained, else -100; not shifted
    pixel_values  (I, 3, H, W)   float32 in [-1, 1]; absent when no row holds a picture
    image_rows    (I,) int64     the row of each picture's placeholder
    image_starts  (I,) int64     the column of its first token

Shape letters in this file: B rows, S columns, I picture tiles.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from owl3.data.encode import U8, EncodedSample
from owl3.idhash import U64

IGNORED = -100
"""The label of a token that is not learned."""


@dataclass(frozen=True, slots=True)
class Drop:
    """A planned sample that was left out while loading."""

    step: int
    sample_id: str
    dataset: str
    reason: str
    where: str
    message: str


@dataclass
class Row:
    """One row of a step, encoded."""

    step: int
    row: int
    """Number within the step."""
    samples: list[EncodedSample]
    drops: list[Drop] = field(default_factory=list)
    fingerprint: U64 = field(default_factory=lambda: np.zeros(2, dtype=np.uint64))
    """Sum over the ids of all planned samples that were met, dropped ones included."""
    seconds: float = 0.0
    """Time a worker spent on it."""


@dataclass
class MicroBatch:
    """Some rows of a step, as tensors."""

    step: int
    rows: tuple[int, ...]
    """Row numbers within the step; none for a dummy that only keeps ranks in step."""
    text: dict[str, Tensor]
    tiles: Tensor | None
    """(I, 3, H, W) uint8."""
    sample_ids: tuple[tuple[str, ...], ...]
    """Per row, in the order of segments 1, 2, …"""
    drops: tuple[Drop, ...]
    fingerprint: U64
    trained_tokens: int
    images: int
    seconds: float = 0.0

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Arguments of the model's forward, pictures as float32."""
        return self.to("cpu")

    def to(self, device: torch.device | str, pixel_dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Arguments of the model's forward on a device; pictures travel as bytes and become floats there."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.text.items()}
        if self.tiles is not None:
            inputs["pixel_values"] = normalise(self.tiles.to(device, non_blocking=True)).to(pixel_dtype)
        return inputs

    def __getstate__(self) -> dict[str, Any]:
        """Text leaves a worker by value: as tensors, each would cost a file descriptor and a round trip to fetch it."""
        return self.__dict__ | {"text": {name: tensor.numpy() for name, tensor in self.text.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state | {"text": {name: torch.from_numpy(array) for name, array in state["text"].items()}}

    def pin_memory(self) -> Self:
        """Called by torch's DataLoader: lets copies to a device overlap with work."""
        self.text = {name: tensor.pin_memory() for name, tensor in self.text.items()}
        self.tiles = self.tiles.pin_memory() if self.tiles is not None else None
        return self


def normalise(tiles: Tensor) -> Tensor:
    """Map bytes to [-1, 1] in float32, in the released processor's order: / 255, - 0.5, / 0.5."""
    return tiles.float().div_(255).sub_(0.5).div_(0.5)


def collate(rows: Sequence[Row], pad_id: int, join: Callable[[list[U8]], Tensor | None]) -> MicroBatch:
    """Put rows side by side, padded to the longest. A row that lost all its samples, or no row at all, is one
    unlabelled token: ranks stay in step, and no attention is over nothing.

    Args:
        join: Joins the tiles of all samples where they shall lie, as `joined` does.
    """
    columns = max([1, *(sum(len(sample.input_ids) for sample in row.samples) for row in rows)])
    shape = (max(1, len(rows)), columns)
    input_ids = np.full(shape, pad_id, dtype=np.int64)
    labels = np.full(shape, IGNORED, dtype=np.int64)
    segment_ids, position_ids = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    segment_ids[:, 0] = 1
    image_rows: list[int] = []
    image_starts: list[np.ndarray] = []
    for b, row in enumerate(rows):
        start = 0
        for number, sample in enumerate(row.samples, start=1):
            here = slice(start, start + len(sample.input_ids))
            input_ids[b, here] = sample.input_ids
            labels[b, here] = np.where(sample.trained, sample.input_ids, IGNORED)
            segment_ids[b, here] = number
            position_ids[b, here] = np.arange(len(sample.input_ids))
            image_rows += [b] * len(sample.image_starts)
            image_starts.append(sample.image_starts + start)
            start = here.stop
    text = {
        "input_ids": torch.from_numpy(input_ids),
        "segment_ids": torch.from_numpy(segment_ids),
        "position_ids": torch.from_numpy(position_ids),
        "labels": torch.from_numpy(labels),
    }
    if image_rows:
        text["image_rows"] = torch.tensor(image_rows, dtype=torch.int64)
        text["image_starts"] = torch.from_numpy(np.concatenate(image_starts))
    return MicroBatch(
        step=rows[0].step if rows else -1,
        rows=tuple(row.row for row in rows),
        text=text,
        tiles=join([block for row in rows for sample in row.samples for block in sample.tiles]),
        sample_ids=tuple(tuple(sample.sample_id for sample in row.samples) for row in rows),
        drops=tuple(drop for row in rows for drop in row.drops),
        fingerprint=np.sum([np.zeros(2, np.uint64), *(row.fingerprint for row in rows)], axis=0, dtype=np.uint64),
        trained_tokens=int(np.count_nonzero(labels != IGNORED)),
        images=len(image_rows),
        seconds=sum(row.seconds for row in rows),
    )


def joined(blocks: list[U8]) -> Tensor | None:
    """Join blocks of (T, H, W, 3) to one (I, 3, H, W), a view of memory of its own; None when there are none."""
    return torch.from_numpy(np.concatenate(blocks)).permute(0, 3, 1, 2) if blocks else None
