"""Clips decode to the frames that were drawn."""

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

from owl3.demo.clips import NUM_FRAMES, Clip, draw_frames, random_clip, write_clip
from owl3.demo.scenes import COLOURS, PLACES, SIDE_PX
from owl3.storage import sha256_of


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in container.decode(video=0)]


def nearest_colour(frame: np.ndarray, place: tuple[float, float]) -> str:
    x, y = (round(share * SIDE_PX) for share in place)
    pixel = frame[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1))
    return min(COLOURS, key=lambda name: float(np.abs(pixel - COLOURS[name]).sum()))


def test_a_moving_shape_ends_where_the_clip_says(tmp_path: Path) -> None:
    write_clip(Clip("square", "green", "", "right", seed=1), tmp_path / "a.mp4")
    frames = decoded(tmp_path / "a.mp4")
    assert len(frames) == NUM_FRAMES
    assert nearest_colour(frames[0], PLACES["left"]) == "green"
    assert nearest_colour(frames[-1], PLACES["right"]) == "green"


def test_a_turning_shape_changes_its_colour_half_way(tmp_path: Path) -> None:
    write_clip(Clip("circle", "red", "blue", "top", seed=1), tmp_path / "a.mp4")
    frames = decoded(tmp_path / "a.mp4")
    seen = [nearest_colour(frame, PLACES["top"]) for frame in frames]
    assert seen == ["red"] * 8 + ["blue"] * 8


def test_the_same_clip_is_the_same_bytes_whatever_lay_in_memory(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom owl3.demo.clips import Clip, write_clip\n"
        "write_clip(Clip('square', 'purple', '', 'right', 15421147), Path(sys.argv[1]) / '0.mp4')\n"
        "write_clip(Clip('ring', 'red', 'blue', 'top', 2), Path(sys.argv[1]) / '1.mp4')\n"
    )
    made = set()
    for filler in ("0", "77", "255"):
        environment = {**os.environ, "MALLOC_PERTURB_": filler}
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
        made.add((sha256_of(tmp_path / "0.mp4"), sha256_of(tmp_path / "1.mp4")))
    assert len(made) == 1


def test_every_clip_has_the_same_number_of_frames() -> None:
    assert len(draw_frames(random_clip(moves=True, rng=np.random.default_rng(0)))) == NUM_FRAMES
