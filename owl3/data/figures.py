"""What a plan will cost, in figures: computed once while planning, kept in `plan.json`, printed and plotted later."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from owl3.data.costs import CostTable

_PADDED_ROWS = 16
"""Rows of the padded batch that packing is compared with."""


def plan_figures(
    tables: Sequence[CostTable],
    order_N: npt.NDArray[Any],
    rows: npt.NDArray[Any],
    steps: npt.NDArray[Any],
    *,
    share: Sequence[int],
    draws: Sequence[int],
    usable: Sequence[int],
    max_tokens: int,
) -> dict[str, Any]:
    """Summarise a plan.

    Returns:
        `datasets` (asked and given percent of draws, given percent of tokens, epochs), `packing_efficiency` (text
        tokens / row capacity), `padding_efficiency` (text tokens / padded tokens, unpacked batches of 16),
        `images_per_step`, `tiles_per_step` and `tokens_per_step` (min, median, max), `rows_per_step`, `worst_step`.
    """
    tokens_M = np.concatenate([table.tokens for table in tables])
    offsets = np.cumsum([0, *(len(table) for table in tables)])
    drawn_tokens, padded_tokens = _tokens_by_dataset(tokens_M, order_N, offsets)
    all_tokens = max(1, int(drawn_tokens.sum()))
    datasets = [
        {
            "name": table.name,
            "asked_percent": round(100 * share[i] / sum(share), 4),
            "given_percent": round(100 * draws[i] / sum(draws), 4),
            "draws": draws[i],
            "usable": usable[i],
            "epochs": round(draws[i] / max(1, usable[i]), 4),
            "tokens": int(drawn_tokens[i]),
            "token_percent": round(100 * int(drawn_tokens[i]) / all_tokens, 4),
        }
        for i, table in enumerate(tables)
    ]
    rows_per_step = np.diff(steps["first_row"], append=len(rows))
    worst = int(np.argmax(steps["tiles"] * np.int64(1 << 32) + steps["tokens"]))
    return {
        "datasets": datasets,
        "packing_efficiency": round(all_tokens / (len(rows) * max_tokens), 4),
        "padding_efficiency": round(all_tokens / max(1, padded_tokens), 4),
        "images_per_step": _spread(steps["images"]),
        "tiles_per_step": _spread(steps["tiles"]),
        "tokens_per_step": _spread(steps["tokens"]),
        "rows_per_step": _spread(rows_per_step),
        "worst_step": {
            "step": worst,
            "rows": int(rows_per_step[worst]),
            "tokens": int(steps["tokens"][worst]),
            "images": int(steps["images"][worst]),
            "tiles": int(steps["tiles"][worst]),
        },
        "longest_row_tokens": int(rows["tokens"].max()),
        "fullest_row_tiles": int(rows["tiles"].max()),
    }


def _tokens_by_dataset(
    tokens_M: npt.NDArray[np.int32], order_N: npt.NDArray[Any], offsets: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], int]:
    """Text tokens drawn from each dataset, and what unpacked batches would be padded to."""
    drawn = np.zeros(len(offsets) - 1, dtype=np.int64)
    padded = 0
    at_once = _PADDED_ROWS << 16
    for start in range(0, len(order_N), at_once):
        positions = order_N[start : start + at_once]
        tokens = tokens_M[positions]
        dataset = np.searchsorted(offsets, positions, side="right") - 1
        drawn += np.bincount(dataset, weights=tokens, minlength=len(drawn)).astype(np.int64)
        whole = len(tokens) // _PADDED_ROWS * _PADDED_ROWS
        padded += _PADDED_ROWS * int(tokens[:whole].reshape(-1, _PADDED_ROWS).max(axis=1).sum())
        if rest := len(tokens) - whole:
            padded += rest * int(tokens[whole:].max())
    return drawn, padded


def _spread(values: npt.NDArray[Any]) -> dict[str, int]:
    return {"min": int(values.min()), "median": int(np.median(values)), "max": int(values.max())}
