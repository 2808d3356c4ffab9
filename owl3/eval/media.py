"""What a question shows, as pictures: read ahead on threads while the model answers the questions before."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from PIL.Image import Image

from owl3.eval.items import Item, Medium
from owl3.media import MediaError, open_image
from owl3.video import frames_at, probe_video, uniform_times


@dataclass(frozen=True, slots=True)
class Shown:
    """An item and its decoded media: one list of pictures per medium (one picture, or a video's frames).

    `error` says why there are none: a medium that can't be read is reported, never scored as a wrong answer.
    """

    item: Item
    pictures: tuple[tuple[Image, ...], ...] = ()
    error: str | None = None


def open_medium(medium: Medium) -> tuple[Image, ...]:
    """Decode one medium: one picture, or `num_frames` frames from the middles of equal parts of a video.

    A video of fewer frames than asked shows some of them twice, as in the released evaluation (facts §2.5).

    Raises:
        MediaError: it is no picture or video that can be decoded.
        FileNotFoundError: there is no such file.
    """
    if medium.data is not None:
        return (open_image(medium.data),)
    if medium.path is None:
        raise FileNotFoundError("the medium has neither path nor bytes")
    if medium.num_frames == 0:
        return (open_image(medium.path.read_bytes()),)
    if medium.frames_per_s:
        files = sorted(path for path in medium.path.iterdir() if path.is_file())  # a missing folder says so itself
        times = _times(medium, len(files) / medium.frames_per_s)
        return tuple(open_image(files[int(time_s * medium.frames_per_s)].read_bytes()) for time_s in times)
    if not medium.path.is_file():
        raise FileNotFoundError(medium.path)
    times = _times(medium, probe_video(medium.path).duration_s)
    return tuple(frame.image for frame in frames_at(medium.path, times))


def _times(medium: Medium, length_s: float) -> list[float]:
    end_s = length_s if medium.end_s is None else min(length_s, medium.end_s)
    if end_s <= medium.start_s:
        raise MediaError("clip_too_short", f"ends at {end_s} s, asked from {medium.start_s} s")
    return uniform_times(medium.start_s, end_s, medium.num_frames)


def show(item: Item) -> Shown:
    """Decode all media of an item, or say why not: `media_missing: a.jpg`, `undecodable: b.mp4`."""
    pictures = []
    for medium in item.media():
        try:
            pictures.append(open_medium(medium))
        except FileNotFoundError:
            return Shown(item, error=f"media_missing: {medium.name()}")
        except MediaError as error:
            return Shown(item, error=f"{error.reason}: {medium.name()}")
    return Shown(item, tuple(pictures))


class ReadAhead:
    """Decoded batches in order, at most `ahead` of them before they are asked for.

    `waited_s` is how long the model had to wait for data: near zero when decoding keeps up.
    """

    def __init__(self, batches: Sequence[Sequence[Item]], *, threads: int = 2, ahead: int = 2) -> None:
        self._batches = batches
        self._threads = threads
        self._ahead = ahead
        self.waited_s = 0.0

    def __iter__(self) -> Iterator[list[Shown]]:
        with ThreadPoolExecutor(self._threads, "eval-media") as pool:
            futures = [[pool.submit(show, item) for item in batch] for batch in self._batches[: self._ahead]]
            for index in range(len(self._batches)):
                begun = time.perf_counter()
                shown = [future.result() for future in futures.pop(0)]
                self.waited_s += time.perf_counter() - begun
                if index + self._ahead < len(self._batches):
                    futures.append([pool.submit(show, item) for item in self._batches[index + self._ahead]])
                yield shown
