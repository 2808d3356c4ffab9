"""Which moments of a clip a sample holds, and what was done about clips that are too short.

uniform   middles of `count` equal parts of the clip
fps       `fps` per second; more than `count`: the middles of `count` equal parts of those
scenes    the middles of the shots between cuts; more than `count`: evenly chosen
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from owl3.build.config import Frames
from owl3.build.drafts import Medium, Refused
from owl3.media import encode_jpeg, open_image
from owl3.video import Frame, frames_at, probe_video, uniform_times

_LOOK_FPS = 4.0
"""How often a clip is looked at to find cuts."""
_LOOK_SIDE_PX = 64
_MAX_LOOKS = 2000


@dataclass(frozen=True)
class FrameSet:
    """Frames in order of time, and how they were chosen."""

    media: tuple[Medium, ...]
    facts: dict[str, Any]


def sample_frames(path: Path, cfg: Frames) -> FrameSet:
    """Decode the frames that the policy asks for.

    Raises:
        MediaError: when the file is no clip or can't be decoded.
        Refused: `too_few_frames` when fewer than `cfg.min` different frames are found.
    """
    clip = probe_video(path)
    times = frame_times(path, clip.duration_s, cfg)
    found = frames_at(path, times)
    different = _without_repeats(found)
    if len(different) < cfg.min:
        raise Refused("too_few_frames", f"{len(different)} different frames of {clip.duration_s} s, min is {cfg.min}")
    kept = found if cfg.on_short == "repeat" else different
    facts = {
        "policy": cfg.policy,
        "asked": len(times),
        "taken": len(kept),
        "repeated": len(kept) - len(different),
        "clip_s": clip.duration_s,
    }
    return FrameSet(tuple(_medium(frame, cfg) for frame in kept), facts)


def frames_of_folder(path: Path, cfg: Frames) -> FrameSet:
    """Frames that somebody cut out already (ShareGPTVideo): evenly chosen, in the order of their names.

    When they were shown is not known: their numbers stand for seconds, and the facts say so.

    Raises:
        Refused: `too_few_frames`.
        MediaError: when one can't be decoded.
    """
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if len(files) < cfg.min:
        raise Refused("too_few_frames", f"{path.name}: {len(files)} frames, min is {cfg.min}")
    numbers = [int(number) for number in _thinned([float(number) for number in range(len(files))], cfg.count)]
    media = tuple(_medium(Frame(float(number), open_image(files[number].read_bytes())), cfg) for number in numbers)
    facts = {"policy": "uniform", "asked": cfg.count, "taken": len(media), "repeated": 0, "times": "frame numbers"}
    return FrameSet(media, facts)


def frame_times(path: Path, duration_s: float, cfg: Frames) -> list[float]:
    """The moments to look at, ascending, at most `cfg.count`."""
    if cfg.policy == "uniform":
        return uniform_times(0.0, duration_s, cfg.count)
    if cfg.policy == "fps":
        wanted = max(1, int(duration_s * cfg.fps))
        times = [round((index + 0.5) / cfg.fps, 3) for index in range(wanted)]
    else:
        times = _shot_middles(path, duration_s, cfg.scene_threshold)
    return _thinned(times, cfg.count)


def _thinned(times: list[float], count: int) -> list[float]:
    """At most `count` of the times: the middles of equal parts, as the released demo takes them."""
    if len(times) <= count:
        return times
    gap = len(times) / count
    return [times[int(index * gap + gap / 2)] for index in range(count)]


def _shot_middles(path: Path, duration_s: float, threshold: float) -> list[float]:
    """Middles of the shots; a cut is where the picture as a whole changes between two looks."""
    looks = uniform_times(0.0, duration_s, min(_MAX_LOOKS, max(2, int(duration_s * _LOOK_FPS))))
    frames = _without_repeats(frames_at(path, looks))
    small = [_grey(frame.image) for frame in frames]
    borders = [0.0]
    for (before, after), frame in zip(pairwise(small), frames[1:], strict=True):
        if float(np.abs(after - before).mean()) > threshold:
            borders.append(frame.time_s)
    borders.append(max(duration_s, borders[-1]))
    return [round((start + end) / 2, 3) for start, end in pairwise(borders)]


def _grey(image: Image.Image) -> NDArray[np.float32]:
    """A small grey version, values 0 … 1."""
    side = (_LOOK_SIDE_PX, _LOOK_SIDE_PX)
    pixels = np.asarray(image.convert("L").resize(side, Image.Resampling.BOX), dtype=np.float32)
    return pixels / np.float32(255)


def _without_repeats(frames: list[Frame]) -> list[Frame]:
    """Each shown frame once; times that fell on one frame gave it several times."""
    return [frame for index, frame in enumerate(frames) if index == 0 or frame.time_s > frames[index - 1].time_s]


def _medium(frame: Frame, cfg: Frames) -> Medium:
    image = frame.image
    if max(image.size) > cfg.max_side_px:
        image = image.copy()
        image.thumbnail((cfg.max_side_px, cfg.max_side_px), Image.Resampling.BICUBIC)
    return Medium(data=encode_jpeg(image, cfg.quality), time_s=frame.time_s, width=image.width, height=image.height)
