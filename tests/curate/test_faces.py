"""Faces found by a detector of one's own, and blurred."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from owl3.curate.config import CurateConfig
from owl3.curate.faces import FaceConfig, open_detector
from owl3.errors import ConfigError
from owl3.media import blur_boxes

SHIPPED = "opencv:haarcascade_frontalface_default.xml"


def test_a_detector_that_is_not_there_is_told_before_any_work(workspace: Path) -> None:
    config = CurateConfig.model_validate({"name": "s", "source": "s", "faces": {"model": "yunet.onnx"}})
    with pytest.raises(ConfigError, match=r"faces\.model yunet\.onnx: no such file"):
        config.recipe(workspace)


@pytest.mark.parametrize("name", ["a.onnx", "a.xml", "a.pt"])
def test_a_file_that_is_no_detector_is_told(name: str, workspace: Path) -> None:
    (workspace / name).write_bytes(b"not a model")
    with pytest.raises(ConfigError, match=rf"faces\.model {name}: "):
        open_detector(FaceConfig(model=name), workspace)


def test_a_recipe_records_the_weights_and_not_where_they_lie(workspace: Path) -> None:
    (workspace / "a.xml").write_bytes(Path(FaceConfig(model=SHIPPED).path(workspace)).read_bytes())
    copy, shipped = FaceConfig(model="a.xml"), FaceConfig(model=SHIPPED)
    assert copy.recipe(workspace) == shipped.recipe(workspace)


def test_a_picture_without_faces_has_none(workspace: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (200, 100), "grey").save(buffer, "JPEG")
    assert open_detector(FaceConfig(model=SHIPPED), workspace)(buffer.getvalue()) == []


@pytest.mark.shared
def test_a_real_face_is_found_and_blurred(workspace: Path, shared_data: Callable[[str], Path]) -> None:
    (path,) = shared_data("data/laion_cc_sbu_pairs").rglob("000010352.jpg")
    data, detect = path.read_bytes(), open_detector(FaceConfig(model=SHIPPED), workspace)
    ((left, top, right, bottom),) = detect(data)
    blurred = blur_boxes(data, [(left, top, right, bottom)])
    before, after = (np.asarray(Image.open(io.BytesIO(body)).convert("L"), np.float32) for body in (data, blurred))
    height, width = before.shape
    face = (slice(int(top * height), int(bottom * height)), slice(int(left * width), int(right * width)))
    detail = [float(np.abs(np.diff(pixels[face])).mean()) for pixels in (before, after)]
    assert detail[1] < 0.5 * detail[0]
    assert detect(blurred) == []
