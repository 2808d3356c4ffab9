"""From draws to rows and steps: who shares a row, what each row and step costs, and the proof of what it holds.

Works through the draws in slices of whole steps, so 41 million of them need little memory beside their costs.
Shape letters in this file: N draws, S steps, B samples per step.
"""

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from owl3.data.costs import CostTable
from owl3.data.pack import one_per_row, pack_steps
from owl3.idhash import chain_digest, fingerprints
from owl3.planfile import DIGEST_STEPS, STEP_DTYPE

_DRAWS_AT_ONCE = 1 << 21


class Room(Protocol):
    """How many samples make a step, and what a row holds: a `PlanConfig` says it."""

    @property
    def global_batch_size(self) -> int:
        """Samples per step."""

    @property
    def max_tokens(self) -> int:
        """Text tokens per row."""

    @property
    def max_tiles(self) -> int:
        """Picture tiles per row."""

    @property
    def rows_multiple(self) -> int:
        """What the number of rows per step is a multiple of."""

    @property
    def pack(self) -> bool:
        """Whether rows are shared."""


def _step_chunks(num_draws: int, batch: int) -> list[slice]:
    """Cut the draws into slices of whole steps: bounds memory, changes nothing."""
    size = max(1, _DRAWS_AT_ONCE // batch) * batch
    return [slice(start, min(start + size, num_draws)) for start in range(0, num_draws, size)]


def pack_draws(costs: CostTable, order_N: npt.NDArray[Any], room: Room) -> npt.NDArray[np.uint16]:
    """Give each draw its row within its step: array (draws,)."""
    batch = room.global_batch_size
    packs_N = np.empty(len(order_N), dtype=np.uint16)
    for chunk in _step_chunks(len(order_N), batch):
        positions = order_N[chunk]
        tokens_SB = costs.tokens[positions].reshape(-1, batch)
        if room.pack:
            tiles_SB = costs.tiles[positions].reshape(-1, batch)
            packs_N[chunk] = pack_steps(
                tokens_SB, tiles_SB, room.max_tokens, room.max_tiles, room.rows_multiple
            ).ravel()
        else:
            packs_N[chunk] = one_per_row(len(tokens_SB), batch).ravel()
    return packs_N


def add_up(
    costs: CostTable, order_N: npt.NDArray[Any], packs_N: npt.NDArray[np.uint16], room: Room
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Add up what rows and steps cost: the arrays `rows.npy` and `steps.npy`."""
    batch = room.global_batch_size
    steps = np.zeros(len(order_N) // batch, dtype=STEP_DTYPE)
    row_dtype = np.dtype(
        [
            ("tokens", "<u2" if room.max_tokens < 1 << 16 else "<u4"),
            ("tiles", "<u2" if room.max_tiles < 1 << 16 else "<u4"),
        ]
    )
    rows: list[npt.NDArray[Any]] = []
    first_row = 0
    for chunk in _step_chunks(len(order_N), batch):
        positions = order_N[chunk]
        part = steps[chunk.start // batch : chunk.stop // batch]
        for field in ("tokens", "images", "tiles"):
            part[field] = getattr(costs, field)[positions].reshape(-1, batch).sum(axis=1)
        part["trained_tokens"] = costs.trained[positions].reshape(-1, batch).sum(axis=1)
        slots = np.arange(len(positions)) % batch
        part["fingerprint"] = fingerprints(costs.ids[positions], slots).reshape(-1, batch, 2).sum(axis=1)
        rows_per_step = packs_N[chunk].reshape(-1, batch).max(axis=1).astype(np.int64) + 1
        starts = np.cumsum(rows_per_step) - rows_per_step
        part["first_row"] = first_row + starts
        row_N = np.repeat(starts, batch) + packs_N[chunk]
        made = np.zeros(int(rows_per_step.sum()), dtype=row_dtype)
        made["tokens"] = np.bincount(row_N, weights=costs.tokens[positions], minlength=len(made))
        made["tiles"] = np.bincount(row_N, weights=costs.tiles[positions], minlength=len(made))
        rows.append(made)
        first_row += len(made)
    return np.concatenate(rows), steps


def digest_prefixes(steps: npt.NDArray[Any]) -> tuple[str, ...]:
    """Digest the sample ids of the first 100, 200, … steps."""
    digests: list[str] = []
    for end in range(DIGEST_STEPS, len(steps) + 1, DIGEST_STEPS):
        digests.append(chain_digest(digests[-1] if digests else "", steps["fingerprint"][end - DIGEST_STEPS : end]))
    return tuple(digests)
