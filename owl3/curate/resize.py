"""What img2dataset makes of a picture, without img2dataset: the same steps of the same OpenCV, so the same bytes.

    Resizing.leaves_alone(facts, data)     it would decode the picture only to store the bytes that came
    Resizing.apply(data, facts)            what it would store otherwise

Its `Resizer` (1.47) decodes without looking at EXIF, puts transparency on white, resizes by albumentations (which calls
OpenCV), crops or pads, and encodes. Rotated and unusual pictures are made upright RGB before that, which is ours.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from owl3.media import ImageFacts, open_image

Interpolation = Literal["nearest", "linear", "bilinear", "cubic", "bicubic", "area", "lanczos", "lanczos4"]
ResizeMode = Literal["no", "keep_ratio", "center_crop", "border", "keep_ratio_largest"]
Pixels = NDArray[Any]  # (height, width) or (height, width, channels), blue first

_INTERPOLATIONS: dict[Interpolation, str] = {
    "nearest": "INTER_NEAREST",
    "linear": "INTER_LINEAR",
    "bilinear": "INTER_LINEAR",
    "cubic": "INTER_CUBIC",
    "bicubic": "INTER_CUBIC",
    "area": "INTER_AREA",
    "lanczos": "INTER_LANCZOS4",
    "lanczos4": "INTER_LANCZOS4",
}
"""OpenCV's, by img2dataset's names."""
_BY_SHORTER_SIDE = ("keep_ratio", "center_crop")
_WHITE = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class Resized:
    """An encoded picture and its size in pixels."""

    data: bytes
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Resizing:
    """img2dataset's flags that shape a picture, under their own names."""

    image_size: int
    resize_mode: ResizeMode
    resize_only_if_bigger: bool
    upscale_interpolation: Interpolation
    downscale_interpolation: Interpolation
    encode_quality: int
    encode_format: str
    skip_reencode: bool

    def leaves_alone(self, facts: ImageFacts, data: bytes) -> bool:
        """Is the picture stored byte by byte as it came?

        True is img2dataset's `skip_reencode`: of a JPEG (as its `imghdr` tells one) that needs no resizing.
        """
        return self.skip_reencode and facts.plain and _is_jpeg(data) and not self._resizes(facts.width, facts.height)

    def apply(self, data: bytes, facts: ImageFacts, max_pixels: int) -> Resized | None:
        """Decode, resize and encode; None when OpenCV can't."""
        import cv2

        cv2.setNumThreads(1)
        try:
            if facts.plain:
                pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
                if pixels is None:
                    return None
            else:
                pixels = np.ascontiguousarray(np.asarray(open_image(data, max_pixels))[:, :, ::-1])
            pixels = self._fitted(_on_white(pixels))
            done, encoded = cv2.imencode(f".{self.encode_format}", pixels, self._encoding(cv2))
        except cv2.error:
            return None
        return Resized(encoded.tobytes(), pixels.shape[1], pixels.shape[0]) if done else None

    def _side(self, width: int, height: int) -> int:
        return min(width, height) if self.resize_mode in _BY_SHORTER_SIDE else max(width, height)

    def _resizes(self, width: int, height: int) -> bool:
        if self.resize_mode == "no":
            return False
        return not self.resize_only_if_bigger or self._side(width, height) > self.image_size

    def _fitted(self, pixels: Pixels) -> Pixels:
        """The picture in the size wanted."""
        import cv2

        height, width = pixels.shape[:2]
        if not self._resizes(width, height):
            return pixels
        side, size = self._side(width, height), self.image_size
        scale = size / side
        wanted = max(1, round(width * scale)), max(1, round(height * scale))
        if wanted != (width, height):
            name = self.downscale_interpolation if side > size else self.upscale_interpolation
            pixels = _scaled(pixels, wanted, name)
        height, width = pixels.shape[:2]
        if self.resize_mode == "center_crop":
            top, left = (height - size) // 2, (width - size) // 2
            return pixels[top : top + size, left : left + size]
        if self.resize_mode == "border":
            high, wide = max(0, size - height), max(0, size - width)
            edges = (high // 2, high - high // 2, wide // 2, wide - wide // 2)
            return np.asarray(cv2.copyMakeBorder(pixels, *edges, cv2.BORDER_CONSTANT, value=_WHITE))
        return pixels

    def _encoding(self, cv2: Any) -> list[int]:
        flags = {
            "jpg": cv2.IMWRITE_JPEG_QUALITY,
            "png": cv2.IMWRITE_PNG_COMPRESSION,
            "webp": cv2.IMWRITE_WEBP_QUALITY,
        }
        return [flags[self.encode_format], self.encode_quality]


def _scaled(pixels: Pixels, wanted: tuple[int, int], name: Interpolation) -> Pixels:
    """The picture in `wanted` width and height."""
    import cv2

    how = getattr(cv2, _INTERPOLATIONS[name])
    height, width = pixels.shape[:2]
    if name != "area" or pixels.dtype != np.uint8 or (width % wanted[0] == 0 and height % wanted[1] == 0):
        return np.asarray(cv2.resize(pixels, wanted, interpolation=how))
    # OpenCV sums areas in floats anyway: with floats from the start it takes four fifths of the time, and rounds
    # alike. Whole factors have a way of their own, which rounds otherwise.
    return np.asarray(cv2.convertScaleAbs(cv2.resize(pixels.astype(np.float32), wanted, interpolation=how)))


def _on_white(pixels: Pixels) -> Pixels:
    """Transparency on white, in img2dataset's arithmetic."""
    if pixels.ndim != 3 or pixels.shape[-1] != 4:
        return pixels
    alpha = pixels[:, :, 3, np.newaxis]
    mixed = alpha / 255 * pixels[..., :3] + 255 - alpha
    white: Pixels = np.rint(mixed.clip(min=0, max=255)).astype(np.uint8)
    return white


def _is_jpeg(data: bytes) -> bool:
    """What `imghdr` calls a JPEG: others (Adobe's marker first) are encoded again."""
    return data[6:10] in (b"JFIF", b"Exif") or data[:4] == b"\xff\xd8\xff\xdb"
