"""What the loop asks of whoever loads: a step's share of a rank, and what the plan says of the step."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from owl3.planfile import Proof

Row = tuple[int, tuple[str, ...]]
"""Number of a packed row within its step, and the ids of its samples in order."""

Fingerprint = tuple[int, int]
"""Sum, modulo 2^64, over samples of two scrambled words of (id, slot in the step); see `owl3.planfile.fingerprints`."""


class Order(Protocol):
    """What the plan says of a step: the other side of the proof."""

    @property
    def samples_per_step(self) -> int:
        """Over all ranks."""

    def fingerprint(self, step: int) -> Fingerprint:
        """The step's fingerprint, over all ranks."""

    def proof(self, step: int) -> Proof:
        """Of the samples of the first `step` steps."""


class MicroBatch(Protocol):
    """Some packed rows. A rank that has no row left in a step gets one token without a label."""

    @property
    def rows(self) -> Sequence[int]:
        """Their numbers within the step."""

    @property
    def sample_ids(self) -> Sequence[Sequence[str]]:
        """Per row."""

    @property
    def text(self) -> Mapping[str, Tensor]:
        """Holds `segment_ids` (B, S): 0 is padding."""

    @property
    def images(self) -> int:
        """Picture tiles."""

    @property
    def trained_tokens(self) -> int:
        """Tokens with a label."""

    def to(self, device: torch.device, pixel_dtype: torch.dtype) -> Mapping[str, Tensor]:
        """Arguments of the model's forward."""


class Dropped(Protocol):
    """A planned sample that could not be loaded."""

    @property
    def sample_id(self) -> str:
        """Which."""

    @property
    def reason(self) -> str:
        """One of the ledger's."""


class Step(Protocol):
    """One rank's share of a step."""

    @property
    def index(self) -> int:
        """Its number, from 0."""

    @property
    def trained_tokens(self) -> int:
        """Of all ranks, from the plan."""

    @property
    def micro_batches(self) -> Sequence[MicroBatch]:
        """At least one, and as many on every rank."""

    @property
    def drops(self) -> Sequence[Dropped]:
        """This rank's."""

    @property
    def fingerprint(self) -> Any:
        """Of the ids that this rank read from the samples themselves, dropped ones too: two 64-bit words."""


def rows_of(batch: MicroBatch) -> list[Row]:
    """Its rows, as a watch wants them."""
    return [(row, tuple(ids)) for row, ids in zip(batch.rows, batch.sample_ids, strict=True)]


def num_tokens(batch: MicroBatch) -> int:
    """Real tokens: padding, and the one token of a batch without rows, are not counted."""
    return int((batch.text["segment_ids"] > 0).sum()) if batch.rows else 0
