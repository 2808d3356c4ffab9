"""Find faces with a detector of your own, so that they can be blurred (as DataComp does by the boxes it recorded).

    faces: {model: /models/face_detection_yunet_2023mar.onnx}                 OpenCV's YuNet, from the OpenCV zoo
    faces: {model: opencv:haarcascade_frontalface_default.xml}                a Haar cascade that OpenCV ships

YuNet finds faces from all sides, in milliseconds; the cascades find frontal ones only, and miss more.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from owl3.config import Config
from owl3.errors import ConfigError
from owl3.storage import sha256_of

_SHIPPED = "opencv:"
_LONG_SIDE_PX = 640
_MIN_NEIGHBOURS = 5

Box = tuple[float, float, float, float]
"""Left, top, right, bottom as parts of width and height."""

Detector = Callable[[bytes], list[Box]]
"""Faces of an encoded, upright picture."""


class FaceConfig(Config):
    """Which detector looks for faces in rows that bring no boxes of their own."""

    model: str
    """An .onnx file (YuNet) or an .xml file (Haar cascade), absolute or relative to the workspace; `opencv:NAME.xml`
    for a cascade that OpenCV ships."""
    min_score: float = Field(default=0.6, gt=0, lt=1)
    """Of YuNet; a cascade gives no scores. Blurring what is no face costs less than showing one that is."""
    min_side_px: int = Field(default=12, ge=1)
    """Smaller faces can't be recognised. At 640 px on the longer side, to which pictures are shrunk for the search."""

    def path(self, workspace: Path) -> Path:
        """The model's file.

        Raises:
            ConfigError: there is none.
        """
        if self.model.startswith(_SHIPPED):
            import cv2.data

            path = Path(cv2.data.haarcascades) / self.model.removeprefix(_SHIPPED)
        else:
            path = workspace / self.model
        if not path.is_file():
            raise ConfigError(f"faces.model {self.model}: no such file {path}")
        return path

    def recipe(self, workspace: Path) -> dict[str, Any]:
        """What the manifest records: which weights, not where they lie."""
        return self.model_dump(mode="json") | {"model": sha256_of(self.path(workspace))}


def open_detector(config: FaceConfig, workspace: Path) -> Detector:
    """Load the model.

    Raises:
        ConfigError: it is missing, or no model that OpenCV can read.
    """
    import cv2

    path = config.path(workspace)
    if path.suffix not in (".onnx", ".xml"):
        raise ConfigError(f"faces.model {config.model}: must be an .onnx (YuNet) or an .xml (Haar cascade)")
    try:
        if path.suffix == ".onnx":
            return _yunet(path, config)
        cascade = cv2.CascadeClassifier()
        readable = cascade.load(str(path))
    except cv2.error as error:
        raise ConfigError(f"faces.model {config.model}: OpenCV can't read it: {error.err}") from error
    if not readable:
        raise ConfigError(f"faces.model {config.model}: OpenCV finds no cascade in it")
    return _haar(cascade, config)


def _yunet(path: Path, config: FaceConfig) -> Detector:
    import cv2

    model = cv2.FaceDetectorYN.create(str(path), "", (_LONG_SIDE_PX, _LONG_SIDE_PX), config.min_score)

    def detect(data: bytes) -> list[Box]:
        pixels = _shrunk(data, cv2.IMREAD_COLOR)
        model.setInputSize((pixels.shape[1], pixels.shape[0]))
        _, faces = model.detect(pixels)
        return _boxes([] if faces is None else faces[:, :4], pixels, config.min_side_px)

    return detect


def _haar(cascade: Any, config: FaceConfig) -> Detector:
    import cv2

    def detect(data: bytes) -> list[Box]:
        pixels = _shrunk(data, cv2.IMREAD_GRAYSCALE)
        side = (config.min_side_px, config.min_side_px)
        faces = cascade.detectMultiScale(cv2.equalizeHist(pixels), 1.1, _MIN_NEIGHBOURS, minSize=side)
        return _boxes(faces, pixels, config.min_side_px)

    return detect


def _shrunk(data: bytes, flags: int) -> Any:
    """Decode a stored picture, small enough to search fast."""
    import cv2

    pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    scale = _LONG_SIDE_PX / max(pixels.shape[:2])
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else pixels


def _boxes(faces: Any, pixels: Any, min_side_px: int) -> list[Box]:
    height, width = pixels.shape[:2]
    return [
        (float(left / width), float(top / height), float((left + wide) / width), float((top + high) / height))
        for left, top, wide, high in faces
        if min(wide, high) >= min_side_px
    ]
