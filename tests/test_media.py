"""Pictures and clips from strangers."""

import io
import struct
import zlib
from pathlib import Path

import av
import cv2
import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from owl3.media import (
    MediaError,
    blur_boxes,
    encode_jpeg,
    extension_of,
    open_image,
    perceptual_hash,
    probe_image,
    strip_jpeg_metadata,
    thumbnail,
    upright_png,
)
from owl3.video import cut_clip, frames_at, probe_video, uniform_frames, uniform_times

ORIENTATION = 0x0112


def encoded(image: Image.Image, fmt: str = "JPEG", **save: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **save)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header announces a picture that its few bytes never hold."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def clip(path: Path, frames: int = 20, fps: int = 10, size: tuple[int, int] = (64, 48)) -> Path:
    """Frame k is grey of brightness 10 k."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "10", "g": "5"})
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        for index in range(frames):
            pixels = np.full((size[1], size[0], 3), 10 * index, dtype=np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF"])
def test_each_known_format_is_probed_by_its_bytes(fmt: str) -> None:
    facts = probe_image(encoded(noise(80, 60), fmt))
    assert (facts.format, facts.width, facts.height, facts.frames) == (fmt, 80, 60, 1)


@pytest.mark.parametrize(
    "data", [b"", b"<html>not found</html>", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"%PDF-1.7"]
)
def test_what_is_no_picture_says_so(data: bytes) -> None:
    with pytest.raises(MediaError) as caught:
        probe_image(data)
    assert caught.value.reason == "not_an_image"


@pytest.mark.parametrize("side", [9_000, 60_000])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    with pytest.raises(MediaError) as caught:
        open_image(bomb(side, side))
    assert caught.value.reason == "decompression_bomb"


@pytest.mark.parametrize("fmt", ["JPEG", "PNG"])
def test_a_truncated_picture_is_never_half_used(fmt: str) -> None:
    data = encoded(noise(200, 200), fmt)
    for share in (0.5, 0.95):
        with pytest.raises(MediaError) as caught:
            probe_image(data[: int(len(data) * share)])
        assert caught.value.reason == "truncated_image"


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP"]), st.integers(4, 40))
def test_any_bytes_give_facts_or_a_reason(junk: bytes, fmt: str, cut: int) -> None:
    data = encoded(noise(16, 16), fmt)
    for candidate in (junk, data[:cut] + junk, data[:-cut] + junk):
        try:
            assert probe_image(candidate).width > 0
        except MediaError as error:
            assert error.reason in {"not_an_image", "truncated_image", "undecodable", "decompression_bomb"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_shown_upright(orientation: int) -> None:
    upright = Image.new("RGB", (60, 40), "white")
    upright.paste("red", (0, 0, 30, 20))
    undo = {
        1: (),
        2: (Image.Transpose.FLIP_LEFT_RIGHT,),
        3: (Image.Transpose.ROTATE_180,),
        4: (Image.Transpose.FLIP_TOP_BOTTOM,),
        5: (Image.Transpose.TRANSPOSE,),
        6: (Image.Transpose.ROTATE_90,),
        7: (Image.Transpose.TRANSVERSE,),
        8: (Image.Transpose.ROTATE_270,),
    }
    turned = upright
    for method in undo[orientation]:
        turned = turned.transpose(method)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(turned, "PNG", exif=exif)
    shown = open_image(data)
    facts = probe_image(data)
    assert shown.size == (facts.width, facts.height) == (60, 40)
    assert shown.getpixel((5, 5)) == (255, 0, 0) and shown.getpixel((55, 35)) == (255, 255, 255)
    assert facts.plain == (orientation == 1)


def test_transparency_lies_on_white() -> None:
    assert open_image(encoded(Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "PNG")).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    deep = Image.fromarray(np.full((4, 4), 0x8000, dtype=np.uint16))
    value = open_image(encoded(deep, "PNG")).getpixel((0, 0))
    assert isinstance(value, tuple) and 126 <= value[0] <= 129


@pytest.mark.parametrize("seed", range(5))
def test_the_perceptual_hash_is_imagehashs(seed: int) -> None:
    grey = noise(64, 64, seed).resize((120, 90)).convert("L")
    assert perceptual_hash(grey) == str(imagehash.phash(grey))


def test_the_perceptual_hash_survives_resizing_and_recompression() -> None:
    picture = noise(6, 6).resize((400, 300), Image.Resampling.BICUBIC)
    small = encoded(picture.resize((200, 150)), quality=60)
    distance = int(probe_image(encoded(picture)).phash, 16) ^ int(probe_image(small).phash, 16)
    assert distance.bit_count() <= 4


@pytest.mark.parametrize(
    ("extension", "bits", "plain"), [("png", 8, True), ("png", 16, False), ("avif", 8, True), ("avif", 10, False)]
)
def test_colours_of_more_than_8_bits_are_not_for_every_decoder(extension: str, bits: int, plain: bool) -> None:
    """img2dataset's decoder passes them on as they are, and what encodes them then makes them white."""
    pixels = np.asarray(noise(40, 30)).astype(np.uint16) << (bits - 8)
    flags = [cv2.IMWRITE_AVIF_DEPTH, bits] if extension == "avif" else []
    data = cv2.imencode(f".{extension}", pixels if bits > 8 else pixels.astype(np.uint8), flags)[1].tobytes()
    assert probe_image(data).plain is plain
    upright = open_image(upright_png(data))
    assert np.asarray(upright).mean() == pytest.approx(pixels.mean() / (1 << (bits - 8)), abs=2)


@pytest.mark.parametrize(
    ("kind", "count", "value"),
    [(2, 2, b"6\0\0\0"), (7, 4, b"\6\0\0\0"), (3, 1, b"\t\0\0\0"), (5, 1, b"\xff\xff\0\0"), (3, 9, b"\xff" * 4)],
)
def test_an_orientation_that_is_none_leaves_the_picture_as_it_is(kind: int, count: int, value: bytes) -> None:
    """Cameras and editors write text, bytes or nonsense there; the picture is as good as any."""
    entry = struct.pack("<HHHI", 1, ORIENTATION, kind, count) + value
    exif = b"Exif\0\0II*\0\x08\0\0\0" + entry + bytes(4)
    data = encoded(noise(40, 30))
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert probe_image(data).orientation == 1
    assert open_image(data).size == (40, 30)


def test_sharpness_is_the_variance_of_the_laplacian() -> None:
    picture = noise(100, 80).convert("L")
    pixels = np.asarray(picture, dtype=np.float64)
    around = pixels[:-2, 1:-1] + pixels[2:, 1:-1] + pixels[1:-1, :-2] + pixels[1:-1, 2:]
    expected = float((around - 4 * pixels[1:-1, 1:-1]).var())
    assert probe_image(encoded(picture, "PNG")).sharpness == pytest.approx(expected, abs=0.001)


def test_metadata_goes_and_pixels_stay() -> None:
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    data = encoded(noise(40, 30), exif=exif, comment=b"secret note")
    clean = strip_jpeg_metadata(data)
    assert b"secret" in data and b"secret" not in clean
    assert open_image(clean).tobytes() == open_image(data).tobytes()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_what_a_telephone_appends_to_a_picture_goes(mode: str, progressive: bool) -> None:
    exif = Image.Exif()
    exif[0x010F] = "secret camera"
    picture = noise(60, 40).convert(mode)
    plain = encoded(picture, progressive=progressive, icc_profile=b"profile")
    clean = strip_jpeg_metadata(plain + encoded(picture, exif=exif) + b"secret film")
    assert b"secret" not in clean and clean == strip_jpeg_metadata(plain)
    assert open_image(clean).tobytes() == open_image(plain).tobytes()
    assert Image.open(io.BytesIO(clean)).info["icc_profile"] == b"profile"


@pytest.mark.parametrize("marker", [0xE1, 0xE2, 0xE3, 0xEB, 0xED, 0xFE])
def test_segments_of_applications_go_wherever_they_stand(marker: int) -> None:
    data = encoded(noise(60, 40), progressive=True)
    segment = bytes([0xFF, marker, 0, 8]) + b"secret"
    scans = [place for place in range(len(data)) if data[place : place + 2] == b"\xff\xda"]
    with_them = data[:2] + segment + data[2 : scans[-1]] + segment + data[scans[-1] :]
    assert len(scans) > 1 and strip_jpeg_metadata(with_them) == strip_jpeg_metadata(data)


@pytest.mark.parametrize(("fmt", "extension"), [("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")])
def test_a_file_is_called_what_it_is(fmt: str, extension: str) -> None:
    assert extension_of(encoded(noise(8, 8), fmt)) == extension


@given(st.binary(max_size=60))
def test_stripping_never_breaks_what_is_no_jpeg(junk: bytes) -> None:
    assert isinstance(strip_jpeg_metadata(b"\xff\xd8" + junk), bytes)
    assert strip_jpeg_metadata(b"GIF" + junk) == b"GIF" + junk


def test_thumbnails_are_small_and_clean() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    exif[0x010F] = "secret camera"
    small = thumbnail(encoded(noise(400, 200), exif=exif), side_px=64)
    assert open_image(small).size == (32, 64) and b"secret" not in small
    assert small == thumbnail(encoded(noise(400, 200), exif=exif), side_px=64)


def test_encoding_leaves_metadata_behind() -> None:
    picture = noise(20, 20)
    picture.info["icc_profile"] = b"x" * 100
    assert b"ICC_PROFILE" not in encode_jpeg(picture)


def test_a_clip_tells_its_size_and_length(tmp_path: Path) -> None:
    facts = probe_video(clip(tmp_path / "a.mp4"))
    assert (facts.codec, facts.width, facts.height, facts.frames) == ("h264", 64, 48, 20)
    assert facts.duration_s == pytest.approx(2.0, abs=0.01) and facts.fps == pytest.approx(10)


@pytest.mark.parametrize("data", [b"", b"not a clip", encoded(noise(8, 8)), encoded(noise(8, 8), "PNG")])
def test_what_is_no_clip_says_so(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        probe_video(path)
    assert caught.value.reason == "not_a_video"


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile 'beside.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nbeside.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_clip_that_names_other_files_opens_none_of_them(playlist: str, tmp_path: Path) -> None:
    clip(tmp_path / "beside.mp4")
    path = tmp_path / "a.mp4"
    path.write_text(playlist)
    for look in (probe_video, lambda at: frames_at(at, [0.0]), lambda at: cut_clip(at.read_bytes(), 0.0, 1.0)):
        with pytest.raises(MediaError):
            look(path)


def test_a_clip_that_announces_more_frames_than_a_table_holds_has_as_many_as_it_holds(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mkv").read_bytes()
    mark = data.index(b"\x44\x89\x88") + 3  # Duration, a double in milliseconds
    endless = data[:mark] + struct.pack(">d", 1e15) + data[mark + 8 :]
    assert probe_video(io.BytesIO(data)).frames == 20
    assert probe_video(io.BytesIO(endless)).frames == 2**31 - 1


@pytest.mark.parametrize("first_s", [0.0, 1.05])
def test_the_frame_at_a_time_is_the_one_being_shown(first_s: float, tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4")
    times = [first_s, first_s + 0.25, 1.9, 99.0]
    frames = frames_at(path, times)
    shown = [min(19, int((time_s + 1e-6) * 10)) for time_s in times]
    assert [frame.time_s for frame in frames] == pytest.approx([index / 10 for index in shown])
    for frame, index in zip(frames, shown, strict=True):
        value = frame.image.getpixel((30, 20))
        assert isinstance(value, tuple) and abs(value[0] - 10 * index) <= 4


def test_seeking_far_into_a_clip_finds_the_same_frame(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", frames=24, fps=4)
    late = frames_at(path, [4.3])[0]
    assert late.time_s == pytest.approx(4.25)
    assert late.image.tobytes() == frames_at(path, [0.0, 4.3])[1].image.tobytes()


def test_uniform_frames_stand_in_the_middle_of_equal_parts(tmp_path: Path) -> None:
    assert uniform_times(0, 8, 4) == [1, 3, 5, 7]
    assert [frame.time_s for frame in uniform_frames(clip(tmp_path / "a.mp4"), 4)] == pytest.approx(
        [0.2, 0.7, 1.2, 1.7]
    )


def test_a_clip_too_short_for_its_frames_says_so(tmp_path: Path) -> None:
    with pytest.raises(MediaError) as caught:
        uniform_frames(clip(tmp_path / "a.mp4", frames=3), 8)
    assert caught.value.reason == "clip_too_short"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_faces_are_blurred_where_they_are_shown(orientation: int) -> None:
    stored = Image.new("RGB", (64, 48), "white")
    stored.paste(noise(16, 12, 1), (8, 6))  # a face at 1/8 .. 3/8 of the stored picture
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(stored, "PNG", exif=exif)
    sharp = np.asarray(open_image(data), dtype=np.float32)
    blurred = np.asarray(open_image(blur_boxes(data, [[1 / 8, 1 / 8, 3 / 8, 3 / 8]], orientation)), dtype=np.float32)
    assert sharp.shape == blurred.shape
    face = (sharp != 255).any(axis=2)
    assert sharp[face].std() > 3 * blurred[face].std()


def test_a_cut_clip_holds_the_part_asked_for(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mp4").read_bytes()
    part = tmp_path / "part.mp4"
    part.write_bytes(cut_clip(data, 0.7, 1.4))  # keyframes lie every half second
    assert cut_clip(data, 0.7, 1.4) == part.read_bytes()
    first = frames_at(part, [0.0])[0].image.getpixel((30, 20))
    assert isinstance(first, tuple) and abs(first[0] - 50) <= 4
    assert probe_video(part).duration_s == pytest.approx(0.9, abs=0.25)  # 0.5 to 1.4, and up to two reference frames


def test_nothing_lies_beyond_the_end_of_a_clip(tmp_path: Path) -> None:
    data = clip(tmp_path / "a.mp4").read_bytes()
    with pytest.raises(MediaError) as caught:
        cut_clip(data, 0.5, 0.4)
    assert caught.value.reason == "clip_too_short"
