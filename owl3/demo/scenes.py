"""Simple pictures whose truth is known exactly, so that captions, questions and answers can be.

A scene is what is to be seen; `draw` turns it into pixels and depends on nothing else. Four kinds:

    one     one large shape at a place               "a red star on the left"
    pair    two shapes that differ in shape, colour  "a red star on the left and a blue ring on the right"
    count   one to four equal small shapes           "three green squares"
    word    a short word in coloured letters         'the word "cat" in blue letters'

Scenes are large and plain because a model of a million parameters has to learn to see from a few hundred
of them. Their backgrounds are mottled for another reason: perceptual hashes look at light and dark only, so
on plain ground a red star and a blue star would count as the same picture.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SIDE_PX = 96
"""Width and height of every picture; the demo's model looks at 48 or 64 px of it."""

HELD_OUT_SHARE = 8
"""One scene in this many is kept for evaluation; see `Scene.held_out`."""

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 25, 30),
    "orange": (255, 135, 0),
    "yellow": (252, 232, 30),
    "green": (25, 140, 45),
    "blue": (25, 65, 215),
    "purple": (130, 30, 165),
    "black": (12, 12, 12),
    "white": (252, 252, 252),
}
PLACES: dict[str, tuple[float, float]] = {
    "left": (0.26, 0.5),
    "right": (0.74, 0.5),
    "top": (0.5, 0.26),
    "bottom": (0.5, 0.74),
}
WORD_HEIGHTS = {"high": 0.3, "middle": 0.5, "low": 0.7}
"""Where a word is written. Nobody is asked for it: with it, every word is seen in every colour in training too."""

NUMBERS = ("one", "two", "three", "four")
WORDS = ("cat", "dog", "sun", "map", "key", "bus", "hat", "owl")
KINDS = ("one", "pair", "count", "word")


@dataclass(frozen=True)
class Thing:
    """One shape. `place` is empty where the kind of scene does not fix it (count)."""

    shape: str
    colour: str
    place: str = ""


@dataclass(frozen=True)
class Scene:
    """What is to be seen. `seed` moves things a little and mottles the ground; it changes no answer."""

    kind: str
    things: tuple[Thing, ...]
    seed: int
    word: str = ""

    @property
    def key(self) -> str:
        """The scene without its seed: equal keys have equal answers to every question."""
        seen = "+".join(f"{thing.colour} {thing.shape} {thing.place}".strip() for thing in self.things)
        return f"{self.kind}/{self.word}/{seen}"

    @property
    def held_out(self) -> bool:
        """Whether this picture belongs to evaluation. A property of the scene, so no list can get out of date.

        Of pairs, whole combinations are kept back: there are thousands. The other kinds have fewer than 200 each, so a
        combination kept back would be told by its absence (red letters never say "cat": measured, a model that does not
        see yet scores 0.07 on held-out words where chance is 0.12); of these, single pictures are kept back.
        """
        what = self.key if self.kind == "pair" else f"{self.key}/{self.seed}"
        return hashlib.sha256(what.encode()).digest()[0] % HELD_OUT_SHARE == 0

    def to_dict(self) -> dict[str, Any]:
        """The scene as plain data."""
        return asdict(self)


def random_scene(kind: str, rng: np.random.Generator) -> Scene:
    """A scene of `kind` with every choice drawn evenly."""
    seed = int(rng.integers(2**31))
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:2]]
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2]]
    if kind == "one":
        return Scene(kind, (Thing(shapes[0], colours[0], _pick(rng, tuple(PLACES))),), seed)
    if kind == "pair":
        first, second = [("left", "right"), ("top", "bottom")][int(rng.integers(2))]
        return Scene(kind, (Thing(shapes[0], colours[0], first), Thing(shapes[1], colours[1], second)), seed)
    if kind == "count":
        number = 1 + int(rng.integers(len(NUMBERS)))
        return Scene(kind, (Thing(shapes[0], colours[0]),) * number, seed)
    if kind == "word":
        height = _pick(rng, tuple(WORD_HEIGHTS))
        return Scene(kind, (Thing("word", colours[0], height),), seed, word=_pick(rng, WORDS))
    raise ValueError(f"unknown kind of scene {kind!r}: one of {', '.join(KINDS)}")


def draw(scene: Scene) -> Image.Image:
    """The picture of a scene, SIDE_PX square, RGB. A function of the scene alone."""
    rng = np.random.default_rng(scene.seed)
    canvas = mottled_ground(rng)
    if scene.kind == "word":
        _write(canvas, scene.word, scene.things[0], rng)
    elif scene.kind == "count":
        cells = rng.permutation(9)[: len(scene.things)]
        for thing, cell in zip(scene.things, cells, strict=True):
            centre = (1 / 6 + (cell % 3) / 3, 1 / 6 + (cell // 3) / 3)
            stamp(canvas, thing, _jitter(centre, 0.02, rng), 0.115 + 0.02 * rng.random())
    else:
        radius = 0.24 if scene.kind == "one" else 0.2
        for thing in scene.things:
            stamp(canvas, thing, _jitter(PLACES[thing.place], 0.03, rng), radius * (0.92 + 0.16 * rng.random()))
    return canvas.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS)


def jpeg_bytes(image: Image.Image, quality: int = 90) -> bytes:
    """The picture as JPEG bytes, without chroma subsampling: small coloured shapes would bleed."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def mottled_ground(rng: np.random.Generator, side_px: int = 2 * SIDE_PX) -> Image.Image:
    """A ground of soft blotches around one pale tint, twice as wide as the picture (shapes are drawn, then shrunk)."""
    tint = rng.integers(140, 186, 3)
    light = rng.normal(0, 26, (6, 6, 1))
    blotches = np.clip(tint + light, 85, 220).astype(np.uint8)
    return Image.fromarray(blotches).resize((side_px, side_px), Image.Resampling.BICUBIC)


def stamp(canvas: Image.Image, thing: Thing, centre: tuple[float, float], radius: float) -> None:
    """Draw `thing` on `canvas`; centre and radius are shares of the canvas's side."""
    side = canvas.width
    x, y, r = centre[0] * side, centre[1] * side, radius * side
    pen, colour = ImageDraw.Draw(canvas), COLOURS[thing.colour]
    if thing.shape == "circle":
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif thing.shape == "ring":
        pen.ellipse((x - r, y - r, x + r, y + r), outline=colour, width=round(r * 0.42))
    elif thing.shape == "square":
        pen.rectangle((x - r * 0.88, y - r * 0.88, x + r * 0.88, y + r * 0.88), fill=colour)
    elif thing.shape == "cross":
        arm = r * 0.32
        pen.rectangle((x - r, y - arm, x + r, y + arm), fill=colour)
        pen.rectangle((x - arm, y - r, x + arm, y + r), fill=colour)
    elif thing.shape == "triangle":
        pen.polygon([(x, y - r), (x + r, y + r * 0.85), (x - r, y + r * 0.85)], fill=colour)
    elif thing.shape == "star":
        turns = [(math.pi * i / 5, r * 1.1 if i % 2 == 0 else r * 0.46) for i in range(10)]
        pen.polygon([(x + q * math.sin(a), y - q * math.cos(a)) for a, q in turns], fill=colour)
    else:
        raise ValueError(f"unknown shape {thing.shape!r}: one of {', '.join(SHAPES)}")


def _write(canvas: Image.Image, word: str, letters: Thing, rng: np.random.Generator) -> None:
    font = ImageFont.load_default(round(canvas.width * (0.42 + 0.04 * rng.random())))
    x, y = _jitter((0.5, WORD_HEIGHTS[letters.place]), 0.04, rng)
    ImageDraw.Draw(canvas).text(
        (x * canvas.width, y * canvas.width), word, fill=COLOURS[letters.colour], font=font, anchor="mm", stroke_width=2
    )


def _jitter(centre: tuple[float, float], reach: float, rng: np.random.Generator) -> tuple[float, float]:
    dx, dy = rng.uniform(-reach, reach, 2)
    return float(centre[0] + dx), float(centre[1] + dy)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
