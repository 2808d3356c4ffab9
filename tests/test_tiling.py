"""The grid that a picture is cut into, and how it is resized."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from owl3.tiling import GRIDS, MAX_TILES, bicubic, choose_grid, tiles_when_cut

# Checked against the released image processor.
RELEASED = {
    (500, 500): (2, 2),
    (640, 480): (2, 3),
    (1024, 768): (2, 3),
    (1920, 1080): (2, 3),
    (900, 600): (2, 3),
    (480, 640): (3, 2),
    (1080, 1920): (3, 2),
    (1000, 300): (1, 3),
    (1200, 400): (1, 3),
    (300, 1000): (3, 1),
    (2000, 500): (1, 4),
    (500, 2000): (4, 1),
}


@pytest.mark.parametrize("tile_px", [378, 384])
@pytest.mark.parametrize(("size", "grid"), RELEASED.items())
def test_grids_are_the_released_ones(size: tuple[int, int], grid: tuple[int, int], tile_px: int) -> None:
    assert choose_grid(*size, tile_px=tile_px) == grid


@given(width=st.integers(1, 30000), height=st.integers(1, 30000), tile_px=st.sampled_from([14, 56, 378, 384]))
def test_every_picture_has_a_grid_and_turning_it_turns_the_grid(width: int, height: int, tile_px: int) -> None:
    rows, columns = choose_grid(width, height, tile_px)
    assert (rows, columns) in GRIDS
    assert 3 < tiles_when_cut(width, height, tile_px) <= MAX_TILES + 1
    if width > 1.2 * height:
        assert columns > rows or (rows, columns) == (2, 2)


def test_a_picture_without_pixels_has_no_grid() -> None:
    with pytest.raises(ValueError, match="sides must be positive: 0x5 px"):
        choose_grid(0, 5, 384)


def test_bicubic_resizes_horizontally_first_whatever_is_cheaper() -> None:
    """Wide and low to narrow and high: Pillow 13 alone would begin with the vertical pass."""
    pixels = np.random.default_rng(0).integers(0, 256, (80, 30, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    by_hand = picture.resize((56, 80), Image.Resampling.BICUBIC).resize((56, 56), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(bicubic(picture, 56, 56)), np.asarray(by_hand))
