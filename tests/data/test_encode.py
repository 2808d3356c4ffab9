"""Tiles in order, exact pixels by default, a fast decoder that is near, and errors that name a reason."""

import io

import numpy as np
import pytest
from PIL import Image

from owl3.data.encode import Encoder, open_fast, resize_fast, resize_pillow
from owl3.data.reading import StoredSample
from owl3.media import MediaError, open_image
from owl3.tiling import bicubic
from owl3.tokens import TextTokenizer
from tests.data.conftest import conversation


def smooth(width: int, height: int) -> Image.Image:
    """A picture with edges and gradients, as photos have."""
    coarse = np.random.default_rng(3).integers(0, 255, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, kind: str = "JPEG") -> bytes:
    handle = io.BytesIO()
    image.save(handle, kind, **({"quality": 92} if kind == "JPEG" else {}))
    return handle.getvalue()


def encoder(tokenizer: TextTokenizer, **how: object) -> Encoder:
    return Encoder(tokenizer, release="241101", style="chat", tile_px=28, **how)  # type: ignore[arg-type]


def stored(*media: bytes) -> StoredSample:
    return StoredSample(conversation("photos", 1, len(media), 3), list(media), "samples/photos/00000.tar:key")


def test_a_cut_picture_is_its_tiles_row_by_row_and_then_the_whole(tokenizer: TextTokenizer) -> None:
    picture = smooth(120, 80)
    data = as_jpeg(picture)
    encoded = encoder(tokenizer).encode(stored(data), cut=True)
    whole = np.asarray(bicubic(open_image(data), 3 * 28, 2 * 28))
    assert len(encoded.tiles) == len(encoded.image_starts) == 7
    assert np.array_equal(encoded.tiles[0], whole[:28, :28])
    assert np.array_equal(encoded.tiles[2], whole[:28, 56:])
    assert np.array_equal(encoded.tiles[3], whole[28:, :28])
    assert np.array_equal(encoded.tiles[6], np.asarray(bicubic(open_image(data), 28, 28)))


def test_pictures_keep_their_order(tokenizer: TextTokenizer) -> None:
    red, blue = Image.new("RGB", (30, 30), "red"), Image.new("RGB", (30, 30), "blue")
    encoded = encoder(tokenizer).encode(stored(as_jpeg(red), as_jpeg(blue)), cut=False)
    assert encoded.tiles[0, 0, 0, 0] > 200 > 60 > encoded.tiles[1, 0, 0, 0]
    assert encoded.image_starts.tolist() == sorted(encoded.image_starts.tolist())


def test_the_fast_decoder_reads_whole_jpegs_bit_for_bit_as_pillow() -> None:
    data = as_jpeg(smooth(200, 150))
    assert np.array_equal(open_fast(data), np.asarray(open_image(data)))


@pytest.mark.parametrize("size", [(20, 16), (64, 64), (70, 200), (333, 222), (1000, 700)])
def test_the_fast_resize_is_near_the_exact_one(size: tuple[int, int]) -> None:
    picture = smooth(*size)
    difference = np.abs(resize_fast(picture, 64, 64).astype(int) - resize_pillow(picture, 64, 64))
    # Where a picture grows, OpenCV's bicubic is steeper (a = -0.75, Pillow's is -0.5).
    assert difference.mean() < (1.5 if size >= (64, 64) else 3)
    assert np.percentile(difference, 99) <= (10 if size >= (64, 64) else 16)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_what_is_no_jpeg_goes_the_exact_way(kind: str) -> None:
    data = as_jpeg(smooth(40, 30).convert("RGBA"), kind)
    assert np.array_equal(open_fast(data), np.asarray(open_image(data)))


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
def test_a_broken_picture_names_its_reason(tokenizer: TextTokenizer, decoder: str) -> None:
    data = as_jpeg(smooth(200, 150))
    with pytest.raises(MediaError) as caught:
        encoder(tokenizer, decoder=decoder).encode(stored(data[: len(data) // 2]), cut=False)
    assert caught.value.reason == "truncated_image"


def test_text_alone_needs_no_picture(tokenizer: TextTokenizer) -> None:
    encoded = encoder(tokenizer).encode(stored(), cut=False)
    assert encoded.tiles.shape == (0, 28, 28, 3)
    assert len(encoded.input_ids) == encoder(tokenizer).text_tokens(stored())
