"""Which samples of a step share a row.

First best fit, largest first, under two limits at once (text tokens and picture tiles per row), finds how few rows a
step needs. Then the same samples are spread over that many rows, largest first into the emptiest: rows become nearly
equal, so that little is padded and ranks wait little for each other. Where spreading breaks a limit, best fit stands.

It runs over many steps side by side, so that 40 million captions are packed in seconds; each step's result depends on
that step alone.

Shape letters in this file: S steps, B samples per step, R rows.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from owl3.errors import ConfigError

I32 = npt.NDArray[np.int32]
U16 = npt.NDArray[np.uint16]

_STEPS_AT_ONCE = 256
"""Keeps the working set (S x R) in cache; changes no result."""


def pack_steps(tokens_SB: I32, tiles_SB: I32, max_tokens: int, max_tiles: int, rows_multiple: int = 1) -> U16:
    """Put each sample of each step into a row of that step.

    Args:
        tokens_SB: Text tokens of each sample, at most `max_tokens`.
        tiles_SB: Picture tiles of each sample, at most `max_tiles`.
        rows_multiple: Rows per step are a multiple of this, where there are samples enough.

    Returns:
        Row number of each sample (S, B), counted from 0 within its step. No row number is left out, and rows are
        numbered by the first draw they hold.

    Raises:
        ConfigError: more samples per step than row numbers.
    """
    num_steps, batch = tokens_SB.shape
    if batch > 1 << 16:
        raise ConfigError(f"global_batch_size {batch}: a plan holds at most {1 << 16} samples per step")
    rows_SB = np.empty((num_steps, batch), dtype=np.uint16)
    for first in range(0, num_steps, _STEPS_AT_ONCE):
        chunk = slice(first, first + _STEPS_AT_ONCE)
        tokens, tiles = tokens_SB[chunk], tiles_SB[chunk]
        fitted_SB = _best_fit(tokens, tiles, max_tokens, max_tiles)
        num_rows_S = -(-(fitted_SB.max(axis=1) + 1) // rows_multiple) * rows_multiple
        spread_SB, is_whole_S = _spread(tokens, tiles, max_tokens, max_tiles, np.minimum(num_rows_S, batch))
        rows_SB[chunk] = _numbered_by_first_draw(np.where(is_whole_S[:, None], spread_SB, fitted_SB))
    return rows_SB


def one_per_row(num_steps: int, batch: int) -> U16:
    """Give every sample a row of its own: what packing switched off means."""
    return np.broadcast_to(np.arange(batch, dtype=np.uint16), (num_steps, batch))


def _best_fit(tokens_SB: I32, tiles_SB: I32, max_tokens: int, max_tiles: int) -> npt.NDArray[np.intp]:
    num_steps, batch = tokens_SB.shape
    dtype = np.int16 if max(max_tokens, max_tiles) < 1 << 14 else np.int32  # half the bytes, twice the speed
    tokens_SB, tiles_SB = tokens_SB.astype(dtype), tiles_SB.astype(dtype)
    size_SB = np.maximum(tokens_SB / max_tokens, tiles_SB / max_tiles)
    by_size_SB = np.argsort(-size_SB, axis=1, kind="stable")
    step_S = np.arange(num_steps)
    free_tokens_SR = np.full((num_steps, batch), max_tokens, dtype=dtype)
    free_tiles_SR = np.full((num_steps, batch), max_tiles, dtype=dtype)
    rows_SB = np.empty((num_steps, batch), dtype=np.intp)
    none = np.iinfo(dtype).max
    num_open = 0
    for nth in range(batch):
        item_S = by_size_SB[:, nth]
        tokens_S, tiles_S = tokens_SB[step_S, item_S], tiles_SB[step_S, item_S]
        # One closed row is always among the candidates; full rows lose to it, fuller ones that fit win over it.
        left_SR = free_tokens_SR[:, : num_open + 1] - tokens_S[:, None]
        fits_SR = (left_SR >= 0) & (free_tiles_SR[:, : num_open + 1] >= tiles_S[:, None])
        row_S = np.where(fits_SR, left_SR, none).argmin(axis=1)
        rows_SB[step_S, item_S] = row_S
        free_tokens_SR[step_S, row_S] -= tokens_S
        free_tiles_SR[step_S, row_S] -= tiles_S
        num_open = min(max(num_open, int(row_S.max()) + 1), batch - 1)
    return rows_SB


def _spread(
    tokens_SB: I32, tiles_SB: I32, max_tokens: int, max_tiles: int, num_rows_S: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Spread each step over a given number of rows, largest first into the emptiest that has room.

    Returns:
        Rows (S, B), and for each step whether every sample found room.
    """
    num_steps, batch = tokens_SB.shape
    part_SB = (tokens_SB / max_tokens + tiles_SB / max_tiles).astype(np.float32)
    by_size_SB = np.argsort(-part_SB, axis=1, kind="stable")
    step_S, most_rows = np.arange(num_steps), int(num_rows_S.max())
    full = np.float32(4.0)  # above any load: two parts of at most 1 each
    load_SR = np.zeros((num_steps, most_rows), dtype=np.float32)
    load_SR[np.arange(most_rows) >= num_rows_S[:, None]] = full
    free_tokens_SR = np.full((num_steps, most_rows), max_tokens, dtype=np.int32)
    free_tiles_SR = np.full((num_steps, most_rows), max_tiles, dtype=np.int32)
    rows_SB = np.empty((num_steps, batch), dtype=np.intp)
    is_whole_S = np.ones(num_steps, dtype=np.bool_)
    for nth in range(batch):
        item_S = by_size_SB[:, nth]
        tokens_S, tiles_S = tokens_SB[step_S, item_S], tiles_SB[step_S, item_S]
        # Mostly the emptiest row has room; only where it has not, the others are looked at.
        row_S = load_SR.argmin(axis=1)
        fits_S = (free_tokens_SR[step_S, row_S] >= tokens_S) & (free_tiles_SR[step_S, row_S] >= tiles_S)
        if len(tight := np.flatnonzero(~fits_S & is_whole_S)):
            has_room = free_tokens_SR[tight] >= tokens_S[tight, None]
            has_room &= (free_tiles_SR[tight] >= tiles_S[tight, None]) & (load_SR[tight] < full)
            row_S[tight] = np.where(has_room, load_SR[tight], full).argmin(axis=1)
            is_whole_S[tight] = has_room.any(axis=1)
        rows_SB[step_S, item_S] = row_S
        free_tokens_SR[step_S, row_S] -= tokens_S
        free_tiles_SR[step_S, row_S] -= tiles_S
        load_SR[step_S, row_S] += part_SB[step_S, item_S]
    return rows_SB, is_whole_S


def _numbered_by_first_draw(rows_SB: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Rename rows by the order in which draws reach them, so that numbers say nothing about the packing's inside."""
    num_steps, batch = rows_SB.shape
    step_S = np.arange(num_steps)
    first_draw_SR = np.full((num_steps, batch), batch, dtype=np.intp)
    for draw in range(batch - 1, -1, -1):
        first_draw_SR[step_S, rows_SB[:, draw]] = draw
    new_number_SR = np.argsort(np.argsort(first_draw_SR, axis=1, kind="stable"), axis=1, kind="stable")
    return np.take_along_axis(new_number_SR, rows_SB, axis=1)


def share_rows(tiles_R: npt.NDArray[np.integer[Any]], world_size: int) -> list[list[int]]:
    """Give every rank its rows of a step, so that counts differ by at most one and picture tiles are spread evenly.

    Args:
        tiles_R: Picture tiles of each row of the step.

    Returns:
        Row numbers per rank, the heaviest first. A rank may get none when there are fewer rows than ranks.
    """
    heaviest_first = np.argsort(-np.asarray(tiles_R, dtype=np.int64), kind="stable")
    load = [0] * world_size
    rows: list[list[int]] = [[] for _ in range(world_size)]
    for start in range(0, len(heaviest_first), world_size):
        ranks = sorted(range(world_size), key=lambda rank: (load[rank], rank))
        for rank, row in zip(ranks, heaviest_first[start : start + world_size].tolist(), strict=False):
            rows[rank].append(row)
            load[rank] += int(tiles_R[row])
    return rows
