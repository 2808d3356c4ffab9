"""Bytes of a draft's media: read from their places, checked, and made smaller only where the recipe says so."""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from PIL import Image

from owl3.build.drafts import Medium, Place
from owl3.media import MediaError, encode_jpeg, open_header, open_image

_MAX_OPEN_FILES = 64
_EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "BMP": "bmp", "AVIF": "avif"}
_ORIENTATION_TAG = 0x0112
_RESIZED_QUALITY = 95
_MAGIC = ((b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n", "png"))
"""Formats that are known by their first bytes, and hold one picture as curation keeps it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A medium's bytes and what they really are."""

    data: bytes
    sha256: str
    extension: str
    width: int
    height: int
    place: Place | None
    time_s: float | None


class Gone(Exception):
    """A medium is missing or damaged; `row` is the drawn parent it came from, -1 for none."""

    def __init__(self, reason: str, row: int, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.row = row
        self.detail = detail


class MediaReader:
    """Reads media by place; keeps the last few tars open."""

    def __init__(self, workspace: Path, max_side_px: int | None = None) -> None:
        self._workspace = workspace
        self._max_side_px = max_side_px
        self._files: OrderedDict[str, BinaryIO] = OrderedDict()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._files.values():
            handle.close()
        self._files.clear()

    def load(self, medium: Medium) -> Loaded:
        """Read one medium whole.

        Raises:
            Gone: when it is not there, or its bytes are not those its parent's table names, or no still picture.
        """
        data = medium.data or self.read(medium)
        digest = hashlib.sha256(data).hexdigest()
        place = medium.place
        if place is not None and place.sha256 and place.sha256 != digest:
            raise Gone("hash_mismatch", medium.row, f"{place.path} at {place.offset}: not the bytes of its table")
        known = _known_facts(place, data) if self._max_side_px is None else None
        if known is not None:
            return Loaded(data, digest, *known, place, medium.time_s)
        try:
            extension, width, height = picture_facts(data)
            if medium.time_s is None and (place is None or not place.sha256):
                open_image(data)  # nobody has decoded it before: curated pictures carry a digest
            if self._max_side_px is not None and max(width, height) > self._max_side_px:
                data, width, height = _smaller(data, self._max_side_px)
                extension, digest, place = "jpg", hashlib.sha256(data).hexdigest(), None
        except MediaError as error:
            raise Gone(error.reason, medium.row, str(error)) from error
        return Loaded(data, digest, extension, width, height, place, medium.time_s)

    def read(self, medium: Medium) -> bytes:
        """The bytes at a medium's place.

        Raises:
            Gone: when the file is missing or ends before them.
        """
        assert medium.place is not None, "a medium has either bytes or a place"
        place = medium.place
        try:
            handle = self._open(place.path)
        except OSError as error:
            raise Gone("missing_media", medium.row, f"{place.path}: {error.strerror}") from error
        handle.seek(place.offset)
        data = handle.read(place.num_bytes) if place.num_bytes >= 0 else handle.read()
        if place.num_bytes >= 0 and len(data) != place.num_bytes:
            raise Gone("missing_media", medium.row, f"{place.path}: ends inside the medium at {place.offset}")
        if not data:
            raise Gone("missing_media", medium.row, f"{place.path}: is empty")
        return data

    def _open(self, path: str) -> BinaryIO:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) >= _MAX_OPEN_FILES:
            self._files.popitem(last=False)[1].close()
        handle = (self._workspace / path).open("rb")  # an absolute path stays itself
        self._files[path] = handle
        return handle


def _known_facts(place: Place | None, data: bytes) -> tuple[str, int, int] | None:
    """What curation's table says of these very bytes (their digest was compared): no need to look again."""
    if place is None or not place.sha256 or min(place.width, place.height) < 1:
        return None
    extension = next((name for magic, name in _MAGIC if data.startswith(magic)), None)
    return None if extension is None else (extension, place.width, place.height)


def picture_facts(data: bytes) -> tuple[str, int, int]:
    """Extension, width and height as displayed, from the header alone.

    Raises:
        MediaError: when it is no still picture of a format that is stored.
    """
    image = open_header(data)
    extension = _EXTENSIONS.get(str(image.format))
    if extension is None:
        raise MediaError("format_not_allowed", f"{image.format} pictures are not stored")
    width, height = image.size
    try:
        num_pictures = 1 if image.format in ("JPEG", "MPO") else int(getattr(image, "n_frames", 1))
        turned = image.getexif().get(_ORIENTATION_TAG, 1) in (5, 6, 7, 8)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise MediaError("undecodable", f"{image.format}: {error}") from error
    if num_pictures > 1:
        raise MediaError("animated_image", f"{image.format} with {num_pictures} pictures")
    return (extension, height, width) if turned else (extension, width, height)


def _smaller(data: bytes, max_side_px: int) -> tuple[bytes, int, int]:
    image = open_image(data)
    image.thumbnail((max_side_px, max_side_px), Image.Resampling.BICUBIC)
    return encode_jpeg(image, _RESIZED_QUALITY), image.width, image.height
