"""A stored sample becomes what the model reads: token ids with labels, and pictures as square tiles.

The text follows `owl3.template`, so ids and costs have one source. Pictures are resized as the released processor does
it (Pillow, bicubic, ignoring aspect ratio) and stay bytes: they become floats where the model is, not in a worker.

Shape letters in this file: T tiles, H and W their sides.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn.functional import interpolate

from owl3.data.reading import StoredSample
from owl3.media import MAX_PIXELS, open_image
from owl3.template import Grid, Release, Style, render, tokenize
from owl3.tiling import bicubic, choose_grid
from owl3.tokens import TextTokenizer

U8 = npt.NDArray[np.uint8]
Decoder = Literal["pillow", "opencv"]


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """One sample, ready to be put into a row."""

    sample_id: str
    input_ids: npt.NDArray[np.int64]
    trained: npt.NDArray[np.bool_]
    """Which tokens have a label."""
    image_starts: npt.NDArray[np.int64]
    """Index of the first placeholder token of each tile, within this sample."""
    tiles: list[U8]
    """Blocks of (T, H, W, 3); joined, they are in the order of `image_starts`."""


class Encoder:
    """Encodes samples for one plan and one model."""

    def __init__(
        self, tokenizer: TextTokenizer, *, release: Release, style: Style, tile_px: int, decoder: Decoder = "pillow"
    ) -> None:
        self.tokenizer = tokenizer
        self.release: Release = release
        self.style: Style = style
        self.tile_px = tile_px
        self._open: Callable[[bytes], U8 | Image.Image] = open_image if decoder == "pillow" else open_fast
        self._resize = resize_pillow if decoder == "pillow" else resize_fast

    def encode(self, stored: StoredSample, cut: bool) -> EncodedSample:
        """Encode a sample; `cut`: its pictures become tiles.

        Raises:
            MediaError: a medium can't be decoded; the reason is one of the ledger's.
        """
        sample = stored.sample
        grids: dict[int, Grid] = {}
        tiles: list[U8] = []
        for k, data in enumerate(stored.media):  # one at a time: of hundreds of pictures, only tiles are held
            picture = self._open(data)
            if cut:
                grids[k] = choose_grid(*_size(picture), self.tile_px)
            tiles += self._tiles(picture, grids.get(k))
        text = tokenize(
            render(sample.segments, sample.turns, release=self.release, style=self.style, grids=grids), self.tokenizer
        )
        return EncodedSample(
            sample_id=sample.id,
            input_ids=np.array(text.input_ids, dtype=np.int64),
            trained=np.array(text.trained, dtype=np.bool_),
            image_starts=np.array(text.image_starts, dtype=np.int64),
            tiles=tiles,
        )

    def text_tokens(self, stored: StoredSample) -> int:
        """Count the tokens of a sample whose pictures stay whole; needs no decoding."""
        chunks = render(stored.sample.segments, stored.sample.turns, release=self.release, style=self.style)
        return len(tokenize(chunks, self.tokenizer).input_ids)

    def _tiles(self, picture: U8 | Image.Image, grid: Grid | None) -> list[U8]:
        """A whole picture is its own tile; a cut one's stand row by row, and then its global view."""
        side = self.tile_px
        whole = self._resize(picture, side, side)[None]
        if grid is None:
            return [whole]
        rows, columns = grid
        large = self._resize(picture, columns * side, rows * side)
        by_row = large.reshape(rows, side, columns, side, 3).swapaxes(1, 2)
        return [by_row.reshape(-1, side, side, 3), whole]


def resize_pillow(picture: U8 | Image.Image, width: int, height: int) -> U8:
    """Resize as the released processor: Pillow's bicubic, which smooths when it shrinks."""
    assert isinstance(picture, Image.Image)
    return np.asarray(bicubic(picture, width, height))


def open_fast(data: bytes) -> U8:
    """Decode with OpenCV, where it does what Pillow does; else with Pillow.

    Raises:
        MediaError: as `owl3.media.open_image`.
    """
    import cv2

    frame = jpeg_frame(data)
    if frame is None or frame.components not in (1, 3) or frame.width * frame.height > MAX_PIXELS:
        return np.array(open_image(data))  # transparency, palettes, CMYK, a broken end, a bomb: one way to treat them
    decoded = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR_RGB)
    if decoded is None:
        return np.array(open_image(data))  # says why
    return np.asarray(decoded, dtype=np.uint8)


class JpegFrame(NamedTuple):
    """What a JPEG's frame header says; sides are as stored, before its orientation is applied."""

    width: int
    height: int
    components: int
    """1 grey, 3 colour, 4 CMYK."""


def jpeg_frame(data: bytes) -> JpegFrame | None:
    """Find the frame header of a JPEG of 8 bits that is there to its last byte; None for anything else."""
    if data[:2] != b"\xff\xd8" or data[-2:] != b"\xff\xd9":
        return None
    at = 2
    while at + 10 < len(data) and data[at] == 0xFF:
        if data[at + 1] in _FRAME_MARKERS:
            bits, height, width, components = struct.unpack_from(">BHHB", data, at + 4)
            return JpegFrame(width, height, components) if bits == 8 else None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""SOF0 … SOF15; the three between them are tables. Source: ITU T.81, table B.1."""


def resize_fast(picture: U8 | Image.Image, width: int, height: int) -> U8:
    """Resize by torch's version of Pillow's filter: a fifth of its time, and all but the same pixels.

    It works with weights of 16 bits where Pillow's have 22: on 64 photos (COCO) two values in a thousand differ, by 1,
    seldom by 2 of 255. `owl3 bench loader` measures it.
    """
    pixels_1HWC = torch.from_numpy(np.require(picture, requirements="W"))[None]
    pixels_1CHW = pixels_1HWC.permute(0, 3, 1, 2)  # of the four sides: torch knows channels that stand last by them
    resized_1CHW = interpolate(pixels_1CHW, size=(height, width), mode="bicubic", antialias=True)
    resized: U8 = resized_1CHW[0].permute(1, 2, 0).numpy()
    return resized


def _size(picture: U8 | Image.Image) -> tuple[int, int]:
    """(width, height)."""
    if isinstance(picture, Image.Image):
        return picture.size
    return picture.shape[1], picture.shape[0]
