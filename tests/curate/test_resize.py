"""What img2dataset itself makes of a picture, beside what we make of it: the same bytes."""

import io
import json
import subprocess
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from curate.hostile import picture
from owl3 import tools
from owl3.curate.engine import EngineConfig
from owl3.media import MAX_PIXELS, open_image, probe_image, upright_png

_RESIZE = """
import hashlib, io, json, sys
from img2dataset.resizer import Resizer
for path, flags in json.load(sys.stdin):
    data, width, height, _, _, error = Resizer(**flags)(io.BytesIO(open(path, "rb").read()))
    print(json.dumps([data and hashlib.sha256(data).hexdigest(), width, height]))
"""
FLAGS: list[dict[str, Any]] = [
    *({"resize_mode": mode} for mode in ("no", "keep_ratio", "center_crop", "border", "keep_ratio_largest")),
    *({"resize_mode": mode, "resize_only_if_bigger": False} for mode in ("keep_ratio", "center_crop", "border")),
    *({"downscale_interpolation": name} for name in ("nearest", "bilinear", "cubic", "lanczos")),
    {"upscale_interpolation": "bicubic", "resize_only_if_bigger": False},
    {"skip_reencode": False, "encode_quality": 60},
    {"skip_reencode": False, "encode_format": "png", "encode_quality": 3},
    {"skip_reencode": False, "encode_format": "webp", "encode_quality": 80},
]


def saved(image: Image.Image, fmt: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, fmt, **options)
    return buffer.getvalue()


def pictures() -> dict[str, bytes]:
    """Of all kinds, about the size to which they are resized."""
    found = {f"{w}x{h}": picture(1, (w, h)) for w, h in [(64, 64), (63, 90), (64, 65), (65, 64), (90, 121), (200, 3)]}
    noise = np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8)
    found |= {f"noise {side}": saved(Image.fromarray(noise[:side, :side]), "PNG") for side in (128, 192, 384, 381)}
    image = open_image(picture(2, (91, 47)))
    turned = Image.Exif()
    turned[0x0112] = 6
    found |= {"exif": saved(image, "JPEG", exif=Image.Exif()), "turned": saved(image, "JPEG", exif=turned)}
    found |= {"progressive": saved(image, "JPEG", progressive=True), "cmyk": saved(image.convert("CMYK"), "JPEG")}
    small = picture(3, (60, 40))
    found |= {"tables first": small[:2] + small[20:], "comment first": small[:2] + b"\xff\xfe\0\4hi" + small[20:]}
    found |= {f"grey {fmt}": saved(image.convert("L"), fmt) for fmt in ("JPEG", "PNG", "BMP", "WEBP")}
    found |= {f"colour {fmt}": saved(image, fmt) for fmt in ("PNG", "BMP", "WEBP", "GIF", "AVIF")}
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    found |= {f"transparent {fmt}": saved(image, fmt) for fmt in ("PNG", "WEBP")}
    found["deep"] = cv2.imencode(".png", np.asarray(image.convert("RGB")).astype(np.uint16) * 257)[1].tobytes()
    return found


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


@pytest.mark.processes
def test_pictures_become_what_img2dataset_makes_of_them(tmp_path: Path) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    ours: list[list[Any]] = []
    left_alone = set()
    for name, data in pictures().items():
        facts = probe_image(data)
        (tmp_path / name).write_bytes(data if facts.plain else upright_png(data))
        for flags in FLAGS:
            resizing = EngineConfig.model_validate({"image_size": 64} | flags).resizing
            asked.append((str(tmp_path / name), asdict(resizing)))
            if resizing.leaves_alone(facts, data):
                left_alone.add(name)
                ours.append([digest(data), facts.width, facts.height])
            else:
                made = resizing.apply(data, facts, MAX_PIXELS)
                assert made is not None
                ours.append([digest(made.data), made.width, made.height])
    command = [str(tools.python("img2dataset")), "-c", _RESIZE]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    different = [what for what, mine, its in zip(asked, ours, theirs, strict=True) if mine != its]
    assert different == []
    assert {"64x64", "63x90", "exif", "progressive", "grey JPEG", "tables first"} <= left_alone
    assert not left_alone & {"turned", "comment first", "colour PNG"}


def test_what_opencv_can_not_encode_is_no_picture() -> None:
    data = picture(1, (17_000, 4))
    webp = {"encode_format": "webp", "skip_reencode": False, "resize_mode": "no"}
    assert EngineConfig.model_validate(webp).resizing.apply(data, probe_image(data), MAX_PIXELS) is None
