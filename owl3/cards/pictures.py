"""Small pictures for cards and reports: decoded within bounds, re-encoded without metadata, inline.

A thumbnail is a new JPEG made from pixels alone, so that no EXIF, GPS position, comment or trailing bytes of a
downloaded file reach a page.
"""

from __future__ import annotations

import base64
import io
import struct
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from owl3.media import encode_jpeg, open_header, thumbnail
from owl3.video import uniform_frames

PICTURES = ("jpg", "jpeg", "png", "webp", "gif")
CLIPS = ("mp4", "webm", "mkv", "mov", "avi")
"""Extensions of members that are pictures, and of those that are clips."""

_JPEG_SEGMENT = struct.Struct(">HHxHH")
"""Marker and length of a segment; of a frame header, the precision is left out and height and width follow."""
_JPEG_FRAMES = frozenset(range(0xFFC0, 0xFFD0)) - {0xFFC4, 0xFFC8, 0xFFCC}
_JPEG_OTHERS = frozenset(range(0xFFC0, 0xFFFF)) - _JPEG_FRAMES - frozenset(range(0xFFD0, 0xFFDB))
"""Segments that are passed over. Markers without a length, and the start of the scan, are not: before it stands the
frame header."""

DATA_URI_PREFIX = "data:image/jpeg;base64,"


def small_picture(data: bytes, side_px: int, *, blurred: bool = False) -> bytes:
    """Shrink a picture to fit a square of `side_px`, as JPEG without metadata.

    Raises:
        MediaError: when `data` is no picture, or has more pixels than `owl3.media` allows.
    """
    jpeg = thumbnail(data, side_px)
    if not blurred:
        return jpeg
    with Image.open(io.BytesIO(jpeg)) as image:
        return encode_jpeg(image.convert("RGB").filter(ImageFilter.GaussianBlur(side_px / 12)), quality=80)


def small_medium(data: bytes, extension: str | None, side_px: int, *, blurred: bool = False) -> bytes:
    """A thumbnail of a picture, or of the first frame of a clip.

    Raises:
        MediaError: when `data` is neither.
    """
    if extension not in CLIPS:
        return small_picture(data, side_px, blurred=blurred)
    with tempfile.NamedTemporaryFile(suffix=f".{extension}") as file:
        file.write(data)
        file.flush()
        frame = uniform_frames(Path(file.name), 1)[0]
    return small_picture(encode_jpeg(frame.image), side_px, blurred=blurred)


def size_and_format(data: bytes | memoryview) -> tuple[int, int, str]:
    """Width and height in pixels and the lower-case format ("jpeg"), read from the bytes, not from a table.

    Raises:
        MediaError: when `data` is no picture.
    """
    size = jpeg_size(data)
    if size is not None:
        return *size, "jpeg"
    image = open_header(bytes(data))
    return image.width, image.height, (image.format or "").lower()


def jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height from the frame header of a plain JPEG; None for anything out of the ordinary.

    Walking its segments takes microseconds, and an audit does it for every picture of a corpus.
    """
    position, last = 2, len(data) - _JPEG_SEGMENT.size
    if data[:2] != b"\xff\xd8":
        return None
    while position <= last:
        marker, length, height, width = _JPEG_SEGMENT.unpack_from(data, position)
        if marker in _JPEG_OTHERS:
            position += 2 + length
        else:
            return (width, height) if marker in _JPEG_FRAMES and width and height else None
    return None


def data_uri(jpeg: bytes) -> str:
    """A JPEG as the `src` of an `<img>`, so that a page needs no second file."""
    return DATA_URI_PREFIX + base64.b64encode(jpeg).decode("ascii")


def from_data_uri(uri: str) -> bytes:
    """The inverse of `data_uri`."""
    return base64.b64decode(uri.removeprefix(DATA_URI_PREFIX), validate=True)


def pixel_distance(first: bytes, second: bytes) -> float:
    """Mean absolute difference of two pictures, 0 (equal) to 255; 255 when their shapes differ.

    JPEG decoders differ by a level or two, so pictures made on two machines are compared by pixels and not by bytes.
    """
    left, right = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32) for data in (first, second))
    return 255.0 if left.shape != right.shape else float(np.abs(left - right).mean())
