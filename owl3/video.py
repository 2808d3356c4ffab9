"""Clips from strangers: probed, cut and sampled by PyAV, without trusting what they say about themselves.

    probe_video(path)              -> VideoFacts(duration_s=5.0, frames=150, fps=30.0, width=640, …)
    frames_at(path, [0.5, 2.0])    -> [Frame(time_s=0.5, image=…), …]

Only containers that hold their own pictures are opened. A playlist (HLS, DASH, ffconcat, SDP) is bytes too, but it
names other files and addresses, and FFmpeg would read those: a stranger's text would show us our own disk.

Errors are `owl3.media.MediaError`, each with a reason of the ledger's closed list.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image

from owl3.media import MediaError

CONTAINERS = ("mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "gif")
"""FFmpeg's names of the containers that are opened, whatever a file is called."""

MAX_FRAMES = 2**31 - 1
"""What a container announces may be any number; tables hold so many."""


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """What a clip's container and its first and last frames tell."""

    container: str  # PyAV's format name, for example "mov,mp4,m4a,3gp,3g2,mj2"
    codec: str
    width: int  # as displayed, rotation applied
    height: int
    duration_s: float
    frames: int  # as announced, else estimated from duration and rate
    fps: float
    has_audio: bool

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the spool's journal."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of a clip and when it is shown, in seconds from the clip's start."""

    time_s: float
    image: Image.Image


def _open(clip: Path | BinaryIO) -> Any:
    """Open a clip for reading; raises FFmpeg's errors, for what is no clip `ArgumentError` or `InvalidDataError`."""
    import av

    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    return av.open(str(clip) if isinstance(clip, Path) else clip, metadata_errors="ignore", options=options)


def probe_video(clip: Path | BinaryIO) -> VideoFacts:
    """Read a clip's container and decode its first frame.

    Raises:
        MediaError: `not_a_video` without a video stream, `undecodable` when its first frame can't be decoded.
    """
    import av

    try:
        with _open(clip) as container:
            if not container.streams.video:
                raise MediaError("not_a_video", f"no video stream in {container.format.name}")
            stream = container.streams.video[0]
            first = next(container.decode(stream), None)
            if first is None:
                raise MediaError("undecodable", "no frame can be decoded")
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            duration_s = _duration_s(container, stream)
            if stream.codec_context.name in ("mjpeg", "png", "gif", "webp") and duration_s * fps <= 1.5:
                raise MediaError("not_a_video", f"one picture ({stream.codec_context.name}), not a clip")
            frames = min(int(stream.frames) or max(1, round(duration_s * fps)), MAX_FRAMES)
            width, height = first.width, first.height
            if abs(int(getattr(first, "rotation", 0) or 0)) % 180 == 90:
                width, height = height, width
            return VideoFacts(
                container=container.format.name,
                codec=stream.codec_context.name,
                width=width,
                height=height,
                duration_s=round(duration_s, 3),
                frames=frames,
                fps=round(fps, 3),
                has_audio=bool(container.streams.audio),
            )
    except av.error.FFmpegError as error:
        is_foreign = isinstance(error, av.error.InvalidDataError | av.error.ArgumentError)
        reason = "not_a_video" if is_foreign else "undecodable"
        raise MediaError(reason, f"{type(error).__name__}: {error}"[:200]) from error


def cut_clip(data: bytes, start_s: float, end_s: float) -> bytes:
    """Copy the part of a clip between two times into an mp4, without re-encoding.

    It begins at the last keyframe at or before `start_s` and ends with whole reference frames, so it may show a little
    more than asked.

    Raises:
        MediaError: `clip_too_short` when nothing lies between the times, `undecodable` when they can't be copied.
    """
    import av

    if end_s <= start_s:
        raise MediaError("clip_too_short", f"nothing between {start_s} and {end_s} s")
    buffer = io.BytesIO()
    try:
        with (
            _open(io.BytesIO(data)) as source,
            av.open(buffer, "w", format="mp4") as target,
        ):
            stream = source.streams.video[0]
            copy = target.add_stream_from_template(stream)
            time_base = float(stream.time_base or 1)
            origin = stream.start_time or 0
            source.seek(int(start_s / time_base) + origin, stream=stream, backward=True)
            first: int | None = None
            for packet in source.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                if (packet.dts - origin) * time_base >= end_s:
                    break
                first = packet.dts if first is None else first
                packet.pts, packet.dts, packet.stream = packet.pts - first, packet.dts - first, copy
                target.mux(packet)
            if first is None:
                raise MediaError("clip_too_short", f"nothing between {start_s} and {end_s} s")
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise MediaError("undecodable", f"{type(error).__name__}: {error}"[:200]) from error
    return buffer.getvalue()


def _duration_s(container: Any, stream: Any) -> float:
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return float(container.duration or 0) / 1_000_000


def uniform_times(start_s: float, end_s: float, count: int) -> list[float]:
    """`count` times at the middles of equal parts of [start_s, end_s]."""
    part = (end_s - start_s) / count
    return [round(start_s + part * (index + 0.5), 3) for index in range(count)]


def frames_at(path: Path, times_s: Sequence[float]) -> list[Frame]:
    """Decode the frame shown at each of `times_s` (ascending): the last one that starts at or before it.

    Returns:
        One frame per time, upright, RGB, with the time at which it really begins. Times after the end give the last
        frame.

    Raises:
        MediaError: `not_a_video` or `undecodable`.
        ValueError: when times are not ascending.
    """
    import av

    if list(times_s) != sorted(times_s):
        raise ValueError("times must be ascending")
    found: list[Frame] = []
    try:
        with _open(path) as container:
            if not container.streams.video:
                raise MediaError("not_a_video", f"no video stream in {container.format.name}")
            stream = container.streams.video[0]
            stream.thread_type = "NONE"  # one clip must not take all cores of a shared machine
            origin_s = float((stream.start_time or 0) * stream.time_base) if stream.time_base else 0.0
            shown: Any = None
            shown_s = 0.0
            waiting = list(times_s)
            if waiting and waiting[0] > 2.0 and stream.time_base:
                container.seek(int((waiting[0] + origin_s) / stream.time_base), stream=stream, backward=True)
            for frame in container.decode(stream):
                time_s = (frame.time if frame.time is not None else shown_s) - origin_s
                while waiting and shown is not None and time_s > waiting[0] + 1e-6:
                    found.append(_still(shown, shown_s))
                    waiting.pop(0)
                if not waiting:
                    break
                shown, shown_s = frame, time_s
            if shown is None:
                raise MediaError("undecodable", "no frame can be decoded")
            found += [_still(shown, shown_s) for _ in waiting]
    except av.error.FFmpegError as error:
        raise MediaError("undecodable", f"{type(error).__name__}: {error}"[:200]) from error
    return found


def _still(frame: Any, time_s: float) -> Frame:
    image: Image.Image = frame.to_image()
    turn = int(getattr(frame, "rotation", 0) or 0)
    if turn:
        image = image.rotate(turn, expand=True)  # PyAV gives the angle counter-clockwise, as Pillow takes it
    return Frame(time_s=round(max(0.0, time_s), 3), image=image)


def uniform_frames(path: Path, count: int, start_s: float = 0.0, end_s: float = math.inf) -> list[Frame]:
    """Sample `count` frames evenly between two times of a clip.

    Raises:
        MediaError: `not_a_video`, `undecodable`, or `clip_too_short` when the clip has fewer frames than asked.
    """
    facts = probe_video(path)
    last_s = min(end_s, facts.duration_s)
    if facts.frames < count or last_s <= start_s:
        raise MediaError("clip_too_short", f"{facts.frames} frames, {facts.duration_s} s; asked for {count}")
    return frames_at(path, uniform_times(start_s, last_s, count))
