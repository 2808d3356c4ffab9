"""Pictures from strangers: opened without trusting what they say about themselves. For clips see `owl3.video`.

    probe_image(data)              -> ImageFacts(format="JPEG", width=640, height=480, …), or MediaError(reason)
    open_image(data)               -> an upright RGB picture

A `MediaError` carries a reason of the ledger's closed list, so a caller can count it as it is. Decoding can hang or
crash on hostile bytes: whoever reads bytes of unknown origin does it in a child process (`owl3/curate/inspector.py`).
"""

import io
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused by their header; 64 megapixels is a full-frame camera's best."""

IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF")
"""Decoders that bytes from the web may reach. Others (TIFF, EPS, PSD …) are rarely pictures for people."""

_JPEG_BEGINS, _JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"
_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
"""What ends a scan's data: within it 0xff is followed by zero or a restart marker."""
_ORIENTATION_TAG = 0x0112
_HASH_SIDE = 8
_DCT_SIDE = 32
_REDUCED_SIDE_PX = 128
_PLAIN_MODES = ("L", "RGB", "RGBA", "CMYK")
_PNG_DEPTH = 24
"""Where a PNG says how many bits a channel has: its first chunk is always the header."""
_AV1_HIGH_BITDEPTH = 0x40
"""Flag in the third byte of the decoder configuration (AV1-ISOBMFF, 2.3.3)."""


class MediaError(Exception):
    """These bytes are no usable picture or clip; `reason` is a word of the ledger's closed list."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What one decode tells about a picture. Statistics are taken on a grey version of 128 to 256 px."""

    format: str
    width: int  # as displayed, EXIF orientation applied
    height: int
    orientation: int  # EXIF 1..8; 1 is upright
    frames: int
    phash: str  # 64 bits as 16 hex digits, in imagehash's bit order
    grey_std: float  # 0 for one colour, 0..127
    sharpness: float  # variance of the Laplacian
    entropy: float  # of the grey histogram, bits, 0..8
    plain: bool  # upright and of a colour mode and depth that every decoder reads alike

    def to_json(self) -> dict[str, Any]:
        """Plain data, for the spool's journal."""
        return {name: getattr(self, name) for name in self.__slots__}


def open_header(data: bytes, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = IMAGE_FORMATS) -> Image.Image:
    """Read a picture's header only; nothing is decoded yet.

    Raises:
        MediaError: `not_an_image`, or `decompression_bomb` when the header announces more than `max_pixels`.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=list(formats))
    except UnidentifiedImageError as error:
        raise MediaError("not_an_image", f"not one of {', '.join(formats)}: begins with {data[:12]!r}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise MediaError("decompression_bomb", str(error)) from error
    except (OSError, ValueError, SyntaxError, OverflowError) as error:
        raise _broken(error) from error
    if image.width * image.height > max_pixels:
        raise MediaError("decompression_bomb", f"{image.width} x {image.height} is over {max_pixels} pixels")
    return image


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, upright: bool = True) -> Image.Image:
    """Decode a picture to RGB: EXIF orientation applied, transparency on white, first frame of an animation.

    Raises:
        MediaError: `not_an_image`, `decompression_bomb`, `truncated_image` or `undecodable`.
    """
    image = open_header(data, max_pixels)
    try:
        image.load()
        if upright and _orientation(image) != 1:
            ImageOps.exif_transpose(image, in_place=True)  # else it would copy every upright picture
        return _to_rgb(image)
    except (OSError, ValueError, SyntaxError, EOFError, ZeroDivisionError, MemoryError) as error:
        raise _broken(error) from error


def probe_image(data: bytes, max_pixels: int = MAX_PIXELS, formats: Sequence[str] = IMAGE_FORMATS) -> ImageFacts:
    """Decode a picture once, reduced where its format allows, and take all its statistics from that.

    Raises:
        MediaError: as `open_image`.
    """
    image = open_header(data, max_pixels, formats)
    width, height = image.size
    try:
        orientation = _orientation(image)
        plain = orientation == 1 and image.mode in _PLAIN_MODES and not _has_deep_colour(data, str(image.format))
        frames = 1 if image.format == "MPO" else int(getattr(image, "n_frames", 1))
        if image.format in ("JPEG", "MPO"):
            image.draft("L", (_REDUCED_SIDE_PX, _REDUCED_SIDE_PX))
        image.load()
        grey = _grey(image)
    except (OSError, ValueError, SyntaxError, EOFError, ZeroDivisionError, MemoryError) as error:
        raise _broken(error) from error
    if orientation in (5, 6, 7, 8):
        width, height = height, width
    pixels = np.asarray(grey)
    return ImageFacts(
        format="JPEG" if image.format == "MPO" else str(image.format),
        width=width,
        height=height,
        orientation=orientation,
        frames=frames,
        phash=perceptual_hash(grey),
        grey_std=round(float(pixels.std(dtype=np.float32)), 3),
        sharpness=round(_sharpness(pixels), 3),
        entropy=round(float(grey.entropy()), 3),
        plain=plain,
    )


def perceptual_hash(grey: Image.Image) -> str:
    """Hash how a picture looks: signs of its 8 x 8 lowest frequencies against their median.

    Returns:
        16 hex digits in the order of `imagehash.phash`, so hashes from removal lists made with it compare.
    """
    small = np.asarray(grey.resize((_DCT_SIDE, _DCT_SIDE), Image.Resampling.LANCZOS), dtype=np.float64)
    low = (_DCT @ small @ _DCT.T)[:_HASH_SIDE, :_HASH_SIDE]
    return np.packbits(low > np.median(low)).tobytes().hex()


def upright_png(data: bytes, max_pixels: int = MAX_PIXELS) -> bytes:
    """Rewrite a rotated or unusual picture as an upright RGB PNG, losslessly; speed matters more than size."""
    buffer = io.BytesIO()
    open_image(data, max_pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def thumbnail(data: bytes, side_px: int, quality: int = 80) -> bytes:
    """Return a JPEG of at most `side_px` on its longer side, without any metadata.

    Raises:
        MediaError: as `open_image`.
    """
    image = open_image(data)
    image.thumbnail((side_px, side_px), Image.Resampling.LANCZOS)
    return encode_jpeg(image, quality)


def encode_jpeg(image: Image.Image, quality: int = 95) -> bytes:
    """Encode an RGB picture as JPEG without metadata; the same pixels give the same bytes."""
    buffer = io.BytesIO()
    clean = Image.frombytes(image.mode, image.size, image.tobytes())  # leaves EXIF, ICC and comments behind
    clean.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def strip_jpeg_metadata(data: bytes) -> bytes:
    """Drop all of a JPEG that is not its picture, without touching its pixels; colour profiles stay.

    EXIF holds places, names and serial numbers of people's cameras: a corpus has no use for them. It is found in
    segments of the header, and once more in what telephones append to a picture: a second one, a short film. Bytes that
    are not a well-formed JPEG come back as they are.
    """
    if data[:2] != _JPEG_BEGINS:
        return data
    kept, position = [_JPEG_BEGINS], 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        segment = data[position : position + 2 + length]
        if length < 2 or len(segment) != 2 + length:
            return data
        position += 2 + length
        if _belongs_to_picture(marker, segment):
            kept.append(segment)
        if marker == _START_OF_SCAN:
            found = _MARKER.search(data, position)
            end = found.start() if found else len(data)
            kept.append(data[position:end])
            position = end
            if data[end : end + 2] == _JPEG_ENDS:
                return b"".join([*kept, _JPEG_ENDS])
    return b"".join(kept) + data[position:]


def _belongs_to_picture(marker: int, segment: bytes) -> bool:
    """Is a segment of a JPEG needed to show it right: no application's own (APPn) and no comment?"""
    if marker == 0xE2:
        return segment[4:].startswith(b"ICC_PROFILE\0")
    return marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE)  # JFIF and Adobe say how to decode


def extension_of(data: bytes) -> str:
    """What a file of these bytes is called, of the formats that img2dataset stores."""
    if data.startswith(b"\x89PNG"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else "jpg"


def blur_boxes(data: bytes, boxes: Sequence[Sequence[float]], orientation: int = 1, quality: int = 95) -> bytes:
    """Blur rectangles of an upright picture beyond recognition and return it as JPEG.

    Args:
        boxes: [left, top, right, bottom] as parts of width and height of the picture as it was before its EXIF
            `orientation` was applied: boxes were mostly found by programs that ignore it.
    """
    image = open_image(data)
    width, height = image.size
    for box in boxes:
        left, top, right, bottom = _turn_box(box, orientation)
        reach = 0.1 * max((right - left) * width, (bottom - top) * height)  # as for ImageNet's and DataComp's faces
        corners = (left * width - reach, top * height - reach, right * width + reach, bottom * height + reach)
        x0, y0, x1, y1 = (
            int(min(max(value, 0), limit)) for value, limit in zip(corners, (width, height) * 2, strict=True)
        )
        if x1 > x0 and y1 > y0:
            face = image.crop((x0, y0, x1, y1))
            image.paste(face.filter(ImageFilter.GaussianBlur(max(2.0, max(face.size) / 6))), (x0, y0))
    return encode_jpeg(image, quality)


def _turn_box(box: Sequence[float], orientation: int) -> tuple[float, float, float, float]:
    """Where a box of the stored picture lies once EXIF orientation has been applied."""
    left, top, right, bottom = (min(max(float(value), 0.0), 1.0) for value in box)
    turned = {
        2: (1 - right, top, 1 - left, bottom),
        3: (1 - right, 1 - bottom, 1 - left, 1 - top),
        4: (left, 1 - bottom, right, 1 - top),
        5: (top, left, bottom, right),
        6: (1 - bottom, left, 1 - top, right),
        7: (1 - bottom, 1 - right, 1 - top, 1 - left),
        8: (top, 1 - right, bottom, 1 - left),
    }
    return turned.get(orientation, (left, top, right, bottom))


def _dct_matrix(side: int) -> NDArray[np.float64]:
    """The type-II DCT as a matrix (side, side), scaled as scipy's default."""
    k, n = np.mgrid[0:side, 0:side]
    return np.asarray(2.0 * np.cos(np.pi * k * (2 * n + 1) / (2 * side)), dtype=np.float64)


_DCT = _dct_matrix(_DCT_SIDE)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I"):  # 16-bit grey: Pillow clips instead of scaling
        image = image.point(lambda value: value / 256).convert("L")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """What EXIF says about which side is up, 1..8; 1 when it says nothing, or something else than a number."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, ValueError, SyntaxError, struct.error):  # broken, while the picture may be whole
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _has_deep_colour(data: bytes, image_format: str) -> bool:
    """Has a picture more than 8 bits a channel? Pillow scales them down; OpenCV cuts them off, which leaves white."""
    if image_format == "PNG":
        return data[_PNG_DEPTH] > 8
    if image_format == "AVIF":
        _, _, config = data.partition(b"av1C")
        return len(config) > 2 and bool(config[2] & _AV1_HIGH_BITDEPTH)
    return False


def _grey(image: Image.Image) -> Image.Image:
    if image.mode not in ("L", "RGB", "CMYK"):
        image = _to_rgb(image)
    if max(image.size) > 2 * _REDUCED_SIDE_PX:
        image = image.reduce(max(1, max(image.size) // (2 * _REDUCED_SIDE_PX)))
    return image.convert("L")


def _sharpness(pixels: NDArray[np.uint8]) -> float:
    """Variance of the Laplacian, in whole numbers and so exact (a third of the time that floats take)."""
    if min(pixels.shape) < 3:
        return 0.0
    signed = pixels.astype(np.int16)  # the Laplacian lies within -1020 and 1020
    laplacian = signed[:-2, 1:-1] + signed[2:, 1:-1]
    laplacian += signed[1:-1, :-2]
    laplacian += signed[1:-1, 2:]
    laplacian -= 4 * signed[1:-1, 1:-1]
    squares = np.square(laplacian, dtype=np.int32).sum(dtype=np.int64)
    return float(squares / laplacian.size - (laplacian.sum(dtype=np.int64) / laplacian.size) ** 2)


def _broken(error: BaseException) -> MediaError:
    """Tell a picture that ends too early from one the decoder can't read."""
    text = f"{type(error).__name__}: {error}"
    early = any(word in text.lower() for word in ("truncated", "unexpected end", "eof", "not enough image data"))
    return MediaError("truncated_image" if early else "undecodable", text[:200])
