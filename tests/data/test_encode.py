"""Tiles in order, exact pixels by default, a fast decoder that is near, and errors that name a reason."""

import io
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from owl3.data.encode import Decoder, Encoder, jpeg_frame, open_fast, resize_fast, resize_pillow
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
    tiles = np.concatenate(encoded.tiles)
    assert len(tiles) == len(encoded.image_starts) == 7
    assert np.array_equal(tiles[0], whole[:28, :28])
    assert np.array_equal(tiles[2], whole[:28, 56:])
    assert np.array_equal(tiles[3], whole[28:, :28])
    assert np.array_equal(tiles[6], np.asarray(bicubic(open_image(data), 28, 28)))


def test_pictures_keep_their_order(tokenizer: TextTokenizer) -> None:
    red, blue = Image.new("RGB", (30, 30), "red"), Image.new("RGB", (30, 30), "blue")
    encoded = encoder(tokenizer).encode(stored(as_jpeg(red), as_jpeg(blue)), cut=False)
    first, second = np.concatenate(encoded.tiles)
    assert first[0, 0, 0] > 200 > 60 > second[0, 0, 0]
    assert encoded.image_starts.tolist() == sorted(encoded.image_starts.tolist())


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
def test_of_a_sample_of_many_pictures_one_at_a_time_is_held_decoded(tokenizer: TextTokenizer, decoder: Decoder) -> None:
    """400 photos of 12 megapixels would take 14 GB side by side."""
    made = encoder(tokenizer, decoder=decoder)
    opened: list[weakref.ref[object]] = []

    def open_and_watch(data: bytes) -> object:
        assert sum(picture() is not None for picture in opened) <= 1  # the one that the next will replace
        picture = open_picture(data)
        opened.append(weakref.ref(picture))
        return picture

    open_picture, made._open = made._open, open_and_watch  # type: ignore[assignment]
    made.encode(stored(*[as_jpeg(smooth(60, 40))] * 5), cut=False)
    assert len(opened) == 5


def test_the_fast_decoder_reads_whole_jpegs_bit_for_bit_as_pillow() -> None:
    data = as_jpeg(smooth(200, 150))
    assert np.array_equal(open_fast(data), np.asarray(open_image(data)))


@pytest.mark.parametrize("size", [(1, 1), (3, 500), (20, 16), (64, 64), (333, 222), (1000, 700)])
@pytest.mark.parametrize("side", [28, 96])
def test_the_fast_resize_differs_from_the_exact_one_in_single_values(size: tuple[int, int], side: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    for picture in (Image.fromarray(noise), smooth(*size)):
        exact = resize_pillow(picture, 2 * side, side)
        difference = np.abs(resize_fast(picture, 2 * side, side).astype(int) - exact)
        assert difference.max() <= 2
        assert difference.mean() < 0.02


def turned(orientation: int) -> bytes:
    handle, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = orientation
    smooth(60, 40).save(handle, "JPEG", quality=92, exif=exif)
    return handle.getvalue()


UNUSUAL = {
    "grey": lambda: as_jpeg(smooth(60, 40).convert("L")),
    "cmyk": lambda: as_jpeg(smooth(60, 40).convert("CMYK")),
    "png with alpha": lambda: as_jpeg(smooth(60, 40).convert("RGBA"), "PNG"),
    "palette with transparency": lambda: transparent_palette(4),
    "16 bits": lambda: as_jpeg(Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 27), "PNG"),
    "webp": lambda: as_jpeg(smooth(60, 40), "WEBP"),
    "bytes after the end": lambda: as_jpeg(smooth(60, 40)) + b"12345678",
    **{f"turned {n}": lambda n=n: turned(n) for n in range(2, 9)},
}


def transparent_palette(colours: int) -> bytes:
    handle = io.BytesIO()
    smooth(60, 40).quantize(colours).save(handle, "PNG", transparency=3)
    return handle.getvalue()


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_pictures_are_read_alike_by_both_decoders(kind: str) -> None:
    data = UNUSUAL[kind]()
    assert np.array_equal(open_fast(data), np.asarray(open_image(data)))


def test_a_bomb_is_refused_by_both_decoders(tokenizer: TextTokenizer) -> None:
    data = bytearray(as_jpeg(smooth(60, 40)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = (20_000).to_bytes(2, "big") * 2
    assert jpeg_frame(bytes(data)) == (20_000, 20_000, 3)
    for decoder in ("pillow", "opencv"):
        with pytest.raises(MediaError) as caught:
            encoder(tokenizer, decoder=decoder).encode(stored(bytes(data)), cut=False)
        assert caught.value.reason == "decompression_bomb"


def test_the_fast_resize_gives_pixels_as_they_are_stored() -> None:
    """Channels last, or joining a batch would turn every picture around."""
    assert resize_fast(np.zeros((30, 40, 3), dtype=np.uint8), 28, 14).flags.c_contiguous


@given(st.binary(max_size=40))
def test_noise_has_no_frame_header_and_raises_nothing(noise: bytes) -> None:
    jpeg_frame(b"\xff\xd8" + noise + b"\xff\xd9")


@pytest.mark.parametrize("decoder", ["pillow", "opencv"])
def test_a_broken_picture_names_its_reason(tokenizer: TextTokenizer, decoder: str) -> None:
    data = as_jpeg(smooth(200, 150))
    with pytest.raises(MediaError) as caught:
        encoder(tokenizer, decoder=decoder).encode(stored(data[: len(data) // 2]), cut=False)
    assert caught.value.reason == "truncated_image"


def test_text_alone_needs_no_picture(tokenizer: TextTokenizer) -> None:
    encoded = encoder(tokenizer).encode(stored(), cut=False)
    assert encoded.tiles == []
    assert len(encoded.input_ids) == encoder(tokenizer).text_tokens(stored())
