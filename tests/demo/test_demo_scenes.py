"""What is said about a scene is what is to be seen on it."""

import numpy as np
import pytest
from PIL import Image

from owl3.demo.scenes import COLOURS, KINDS, PLACES, SIDE_PX, Scene, Thing, draw, jpeg_bytes, random_scene


def pixel_at(image: Image.Image, place: tuple[float, float]) -> np.ndarray:
    """Mean colour of a 5x5 patch at a place given as shares of the side."""
    x, y = (round(share * SIDE_PX) for share in place)
    return np.asarray(image, dtype=float)[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1))


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("place", PLACES)
def test_a_shape_has_its_colour_at_its_place_and_the_ground_elsewhere(colour: str, place: str) -> None:
    image = draw(Scene("one", (Thing("square", colour, place),), seed=3))
    assert np.abs(pixel_at(image, PLACES[place]) - COLOURS[colour]).max() < 6
    elsewhere = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}[place]
    ground = pixel_at(image, PLACES[elsewhere])
    nearest = min(COLOURS.values(), key=lambda tint: float(np.abs(ground - tint).sum()))
    assert np.abs(ground - nearest).sum() > 90, "the ground must not pass for a shape"


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_as_many_shapes_are_drawn_as_the_scene_counts(number: int) -> None:
    image = np.asarray(draw(Scene("count", (Thing("circle", "red"),) * number, seed=number)), dtype=int)
    is_red = (np.abs(image - COLOURS["red"]).sum(axis=2) < 60).astype(np.int8)
    assert count_blobs(is_red) == number


def count_blobs(mask: np.ndarray) -> int:
    """Connected parts of a mask, by flooding one after the other."""
    left, blobs = {tuple(point) for point in np.argwhere(mask)}, 0
    while left:
        blobs += 1
        edge = [left.pop()]
        while edge:
            y, x = edge.pop()
            near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
            left -= near
            edge += near
    return blobs


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_always_the_same_bytes(kind: str) -> None:
    scene = random_scene(kind, np.random.default_rng(5))
    assert scene == random_scene(kind, np.random.default_rng(5))
    assert jpeg_bytes(draw(scene)) == jpeg_bytes(draw(scene))


def test_the_seed_changes_pixels_but_not_what_is_seen() -> None:
    one, other = (Scene("one", (Thing("star", "blue", "top"),), seed=seed) for seed in (1, 2))
    assert one.key == other.key
    assert jpeg_bytes(draw(one)) != jpeg_bytes(draw(other))


def test_pairs_are_kept_back_by_combination_and_simpler_scenes_one_by_one() -> None:
    pair = (Thing("star", "blue", "top"), Thing("ring", "red", "bottom"))
    assert len({Scene("pair", pair, seed=seed).held_out for seed in range(60)}) == 1
    assert len({Scene("one", pair[:1], seed=seed).held_out for seed in range(60)}) == 2


def test_about_one_combination_in_eight_is_held_out() -> None:
    keys = {(s := random_scene("pair", np.random.default_rng(i))).key: s.held_out for i in range(800)}
    assert 0.08 < sum(keys.values()) / len(keys) < 0.18


def test_an_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="one, pair, count, word"):
        random_scene("landscape", np.random.default_rng(0))
