"""How a picture is resized, and a large one cut into tiles: the grid whose shape fits it best.

    >>> choose_grid(640, 480, tile_px=384)
    (2, 3)

Source: the adaptive cutting of mPLUG-DocOwl 1.5, as the released mPLUG-Owl3 image processor uses it. There is no
1x1 grid: a picture that is cut has at least three tiles, however small it is, and its global view besides.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Sides = NDArray[np.int64]

GRIDS: tuple[tuple[int, int], ...] = ((2, 2), (1, 3), (1, 4), (3, 1), (4, 1), (2, 3), (3, 2))
"""(rows, columns) to choose from; the order breaks ties."""

MAX_TILES = max(rows * columns for rows, columns in GRIDS)


def choose_grid(width: int, height: int, tile_px: int) -> tuple[int, int]:
    """The (rows, columns) a picture is cut into.

    A grid's score is 100 x (how well its shape fits the picture's) + (how well its size does), both as the
    intersection over union of two boxes that share a corner.

    Args:
        width: Of the picture, in pixels.
        height: Of the picture, in pixels.
        tile_px: Side of a tile: the image size of the vision model.

    Raises:
        ValueError: when a side is not positive.
    """
    if min(width, height, tile_px) < 1:
        raise ValueError(f"sides must be positive: {width}x{height} px in tiles of {tile_px} px")
    grid_width = np.array([columns * tile_px for _, columns in GRIDS], dtype=np.int64)
    grid_height = np.array([rows * tile_px for rows, _ in GRIDS], dtype=np.int64)
    same_shape_height = grid_width * height // width  # the picture scaled to the grid's width
    shape_fit = _overlap(grid_width, grid_height, grid_width, same_shape_height)
    size_fit = _overlap(grid_width, grid_height, np.full_like(grid_width, width), np.full_like(grid_height, height))
    return GRIDS[int(np.argmax(100 * shape_fit + size_fit))]


def tiles_when_cut(width: int, height: int, tile_px: int) -> int:
    """How many pictures a cut one becomes, its global view included."""
    rows, columns = choose_grid(width, height, tile_px)
    return rows * columns + 1


def bicubic(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Resize by Pillow's bicubic, horizontally first, ignoring the aspect ratio.

    Pillow rounds to bytes between its two passes. From version 13 on it begins with the cheaper one, which changes
    single pixels by up to 13 of 255; the released models were trained on pictures resized horizontally first.
    """
    return picture.resize((width, picture.height), Image.Resampling.BICUBIC).resize(
        (width, height), Image.Resampling.BICUBIC
    )


def _overlap(width: Sides, height: Sides, other_width: Sides, other_height: Sides) -> NDArray[np.float32]:
    """Intersection over union of boxes that share a corner; fp32, as released, so that near-ties fall the same way."""
    shared = np.minimum(width, other_width) * np.minimum(height, other_height)
    union = width * height + other_width * other_height - shared
    overlap: NDArray[np.float32] = shared.astype(np.float32) / (union.astype(np.float32) + np.float32(1e-5))
    return overlap
