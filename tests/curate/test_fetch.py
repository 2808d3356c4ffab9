"""What img2dataset itself does with a picture, beside what we think that it does."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate.hostile import picture
from owl3 import tools
from owl3.curate.fetch import EngineConfig
from owl3.media import probe_image

_RESIZE = """
import json, io, sys
from img2dataset.resizer import Resizer
for path, flags in json.load(sys.stdin):
    data = open(path, "rb").read()
    stored, width, height, _, _, error = Resizer(**flags)(io.BytesIO(data))
    print(json.dumps([stored == data, width, height]))
"""
_RESIZER_FLAGS = {
    *("image_size", "resize_mode", "resize_only_if_bigger", "upscale_interpolation", "downscale_interpolation"),
    *("encode_quality", "encode_format", "skip_reencode"),
}


def _pictures(folder: Path) -> dict[str, bytes]:
    """Of all kinds and about the size to which they are resized."""
    turned = Image.Exif()
    turned[0x0112] = 6
    found = {f"{w}x{h}": picture(1, (w, h)) for w, h in [(64, 64), (63, 90), (64, 65), (65, 64), (90, 120), (200, 30)]}
    found |= {"exif": picture(2, (60, 40), exif=Image.Exif()), "turned": picture(3, (60, 40), exif=turned)}
    found |= {"progressive": picture(4, (60, 40), progressive=True), "png": picture(5, (60, 40), "PNG")}
    found |= {"tables first": b"\xff\xd8" + picture(6, (60, 40))[20:]}  # no JFIF marker
    found |= {"comment first": b"\xff\xd8\xff\xfe\x00\x04hi" + picture(7, (60, 40))[20:]}
    return found


@pytest.mark.processes
def test_left_alone_is_exactly_what_img2dataset_stores_as_it_came(tmp_path: Path) -> None:
    modes = ("no", "keep_ratio", "center_crop", "border", "keep_ratio_largest")
    configs = [EngineConfig.model_validate({"image_size": 64, "resize_mode": mode}) for mode in modes]
    configs += [EngineConfig(image_size=64, resize_only_if_bigger=False), EngineConfig(skip_reencode=False)]
    asked: list[tuple[str, dict[str, Any]]] = []
    ours = []
    for name, data in _pictures(tmp_path).items():
        path = tmp_path / name
        path.write_bytes(data)
        facts = probe_image(data)
        for config in configs:
            asked.append((str(path), {flag: getattr(config, flag) for flag in sorted(_RESIZER_FLAGS)}))
            ours.append([config.leaves_alone(facts, data), facts.width, facts.height])
    command = [str(tools.python("img2dataset")), "-c", _RESIZE]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    theirs = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(theirs) == len(ours)
    for (name, _), mine, its in zip(asked, ours, theirs, strict=True):
        if Path(name).name == "turned":
            assert mine[0] is False, "stored upright, so it is decoded"
        else:
            assert mine[0] is its[0], name
        if mine[0]:
            assert mine == its, name
    assert {mine[0] for mine in ours} == {True, False}


def test_what_is_asked_of_img2dataset_beside_the_picture_needs_its_bytes() -> None:
    data = picture(1, (60, 40))
    assert EngineConfig().leaves_alone(probe_image(data), data)
    assert not EngineConfig(extract_exif=True).leaves_alone(probe_image(data), data)
