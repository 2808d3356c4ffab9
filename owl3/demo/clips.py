"""Short videos with exact truth: one shape moves, or changes its colour half-way.

Encoded with PyAV as H.264, in the one way that gives the same bytes for the same clip (`ENCODER_OPTIONS`).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from owl3.demo.scenes import COLOURS, PLACES, SHAPES, SIDE_PX, Thing, mottled_ground, stamp
from owl3.demo.talk import Question
from owl3.storage import atomic_writer

FRAMES_PER_S = 8
NUM_FRAMES = 16
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
WAYS = {"left": "left", "right": "right", "top": "up", "bottom": "down"}
"""The name of a movement towards each place."""

ENCODER_OPTIONS = {"qp": "18", "preset": "veryfast", "threads": "1", "x264-params": "asm=0"}
"""With x264's defaults the bytes depend on what lay in memory before: its rate control (off with a fixed `qp`) and its
assembly read some of it uninitialised. Seen by encoding one clip under several values of MALLOC_PERTURB_."""


@dataclass(frozen=True)
class Clip:
    """A shape that goes to `end` from the other side, or stays at `end` and changes colour when `colour_after` is set.

    Exactly one of the two happens: `moves` says which.
    """

    shape: str
    colour: str
    colour_after: str
    end: str
    seed: int

    @property
    def moves(self) -> bool:
        """Whether it moves; otherwise it changes colour."""
        return not self.colour_after

    @property
    def key(self) -> str:
        """The clip without its seed; training and evaluation share no key."""
        return f"{self.shape}/{self.colour}/{self.colour_after}/{self.end}"

    def to_dict(self) -> dict[str, Any]:
        """The clip as plain data."""
        return asdict(self)


def random_clip(moves: bool, rng: np.random.Generator) -> Clip:
    """A clip with every choice drawn evenly; a colour never changes into itself."""
    colours = [list(COLOURS)[i] for i in rng.permutation(len(COLOURS))[:2]]
    shape, end = SHAPES[int(rng.integers(len(SHAPES)))], list(PLACES)[int(rng.integers(len(PLACES)))]
    return Clip(shape, colours[0], "" if moves else colours[1], end, int(rng.integers(2**31)))


def draw_frames(clip: Clip) -> list[Image.Image]:
    """Its NUM_FRAMES pictures, SIDE_PX square."""
    rng = np.random.default_rng(clip.seed)
    ground = mottled_ground(rng)
    radius = 0.2 + 0.03 * rng.random()
    goal, start = np.array(PLACES[clip.end]), np.array(PLACES[OPPOSITE[clip.end]])
    frames = []
    for index in range(NUM_FRAMES):
        share = index / (NUM_FRAMES - 1)
        x, y = start + (goal - start) * share if clip.moves else goal
        colour = clip.colour_after if clip.colour_after and share >= 0.5 else clip.colour
        frame = ground.copy()
        stamp(frame, Thing(clip.shape, colour), (float(x), float(y)), radius)
        frames.append(frame.resize((SIDE_PX, SIDE_PX), Image.Resampling.LANCZOS))
    return frames


def write_clip(clip: Clip, path: Path) -> None:
    """Encode the clip as an MP4 file."""
    with atomic_writer(path) as handle, av.open(handle, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_S, options=ENCODER_OPTIONS)
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        for image in draw_frames(clip):
            container.mux(stream.encode(av.VideoFrame.from_image(image)))
        container.mux(stream.encode(None))


def clip_caption(clip: Clip) -> str:
    """One sentence that tells all that happens."""
    if clip.moves:
        return f"the {clip.colour} {clip.shape} moves {_towards(clip)}"
    return f"the {clip.colour} {clip.shape} turns {clip.colour_after}"


def clip_questions(clip: Clip) -> list[Question]:
    """Every question that a clip answers."""
    if clip.moves:
        return [
            Question("way", "Which way does the shape move?", _towards(clip)),
            Question("colour", "What colour is the moving shape?", clip.colour),
        ]
    return [
        Question("colour", "What colour is the shape at the start?", clip.colour),
        Question("colour", "What colour is the shape at the end?", clip.colour_after),
    ]


def _towards(clip: Clip) -> str:
    return WAYS[clip.end]
