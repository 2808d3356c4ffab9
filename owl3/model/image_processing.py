"""Pictures to pixels: what the vision model reads.

    whole   RGB, resized to S x S (`owl3.tiling.bicubic`; the aspect ratio is not kept), scaled to [-1, 1]
    cut     resized to (rows S) x (columns S), split row by row; the whole picture, S x S, comes last

S is the vision model's image size. Source: the released image processors; the same pixels to 1e-6.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from owl3.errors import InputError
from owl3.template import Grid
from owl3.tiling import bicubic, choose_grid

Pixels = NDArray[np.float32]


def to_rgb(image: Image.Image) -> Image.Image:
    """Any picture as RGB: transparent ones on white, animated ones by their first frame, 16 bits scaled to 8.

    Raises:
        InputError: for what is not a Pillow image, or has no pixels.
    """
    if not isinstance(image, Image.Image):
        raise InputError(f"an image must be a PIL.Image, this is a {type(image).__name__}; open it with PIL.Image.open")
    if min(image.size) < 1:
        raise InputError(f"an image of {image.width}x{image.height} has no pixels")
    if getattr(image, "is_animated", False):
        image.seek(0)
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # Pillow would clip 16-bit greys at 255
        return Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, with_alpha).convert("RGB")
    return image.convert("RGB")


def picture_pixels(image: Image.Image, side_px: int, grid: Grid | None = None) -> Pixels:
    """The pixels of one image: (1, 3, S, S) whole, or (rows x columns + 1, 3, S, S) cut."""
    image = to_rgb(image)
    pictures = [bicubic(image, side_px, side_px)]
    if grid is not None:
        rows, columns = grid
        large = bicubic(image, columns * side_px, rows * side_px)
        corners = [(column * side_px, row * side_px) for row in range(rows) for column in range(columns)]
        pictures = [large.crop((x, y, x + side_px, y + side_px)) for x, y in corners] + pictures
    pixels = np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)
    return normalise(pixels)


def normalise(pixels: NDArray[np.uint8]) -> Pixels:
    """Bytes to [-1, 1]: (x / 255 - 0.5) / 0.5."""
    return pixels.astype(np.float32, order="C") * np.float32(2 / 255) - np.float32(1)


class Owl3ImageProcessor(BaseImageProcessor):  # type: ignore[misc]
    """Resizes, and may cut, the images of a batch.

    Args:
        image_size: S: side of a picture, in pixels.
        cut_enable: Cut images into tiles unless a call says otherwise.
    """

    model_input_names = ["pixel_values"]  # noqa: RUF012 - transformers' own spelling

    def __init__(self, image_size: int = 378, cut_enable: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.cut_enable = cut_enable

    def __call__(
        self, images: Sequence[Image.Image] | Image.Image, cut_enable: bool | None = None, return_tensors: str = "pt"
    ) -> BatchFeature:
        """Pixels of all images, one after the other.

        Returns:
            `pixel_values` (I, 3, S, S) and `grids`, the (rows, columns) of each image or None where it is whole.
        """
        images = [images] if isinstance(images, Image.Image) else list(images)
        cut = self.cut_enable if cut_enable is None else cut_enable
        grids = [self.grid(image) if cut else None for image in images]
        return BatchFeature({"pixel_values": self.pixels(images, grids), "grids": grids})

    def grid(self, image: Image.Image) -> Grid:
        """How an image would be cut."""
        return choose_grid(image.width, image.height, self.image_size)

    def pixels(self, images: Sequence[Image.Image], grids: Sequence[Grid | None]) -> torch.Tensor:
        """(I, 3, S, S) of all pictures of all images."""
        parts = [picture_pixels(image, self.image_size, grid) for image, grid in zip(images, grids, strict=True)]
        return torch.from_numpy(np.concatenate(parts))
