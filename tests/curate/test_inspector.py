"""Strangers' files are decoded in children that may hang or die without taking anything with them."""

import asyncio
import io
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from curate.hostile import picture
from owl3.curate.engine import EngineConfig
from owl3.curate.inspector import Inspection, Inspectors, Looking, inspect_bytes, serve
from owl3.media import MAX_PIXELS

HANGS = (sys.executable, "-c", "import time; time.sleep(60)")


def says(line: bytes) -> tuple[str, ...]:
    """A child that answers something else than it should."""
    code = f"import sys, time; sys.stdout.buffer.write({line + chr(10).encode()!r}); sys.stdout.flush(); time.sleep(60)"
    return (sys.executable, "-c", code)


DIES = (sys.executable, "-c", "import os, sys; sys.stdin.buffer.readline(); os.abort()")


def inspect(
    *bodies: bytes, deadline_s: float = 20, command: tuple[str, ...] | None = None, looking: Looking | None = None
) -> list[Inspection]:
    async def run() -> list[Inspection]:
        inspectors = Inspectors(looking or Looking(), 1, deadline_s, *([command] if command else []))
        try:
            return [await inspectors.inspect(body) for body in bodies]
        finally:
            await inspectors.close()

    return asyncio.run(run())


def test_a_child_serves_one_picture_after_the_other() -> None:
    good, bad, again = inspect(picture(1), b"<html>", picture(2))
    assert good.facts is not None and again.facts is not None and good.facts["phash"] != again.facts["phash"]
    assert bad.reason == "not_an_image"


@pytest.mark.parametrize(
    ("command", "deadline_s", "reason"),
    [
        (HANGS, 0.2, "decode_timeout"),
        (DIES, 20, "undecodable"),
        (says(b"a decoder's complaint"), 20, "undecodable"),
        (says(b'{"bytes": 0}'), 20, "undecodable"),
        (says(b'{"facts": null, "reason": null, "message": "", "size": null, "bytes": 5}'), 0.2, "decode_timeout"),
    ],
)
def test_a_child_that_hangs_or_dies_is_replaced(command: tuple[str, ...], deadline_s: float, reason: str) -> None:
    started = time.monotonic()
    found = inspect(picture(1), picture(2), deadline_s=deadline_s, command=command)
    assert [inspection.reason for inspection in found] == [reason, reason]
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("finish", "sizes"),
    [
        ("unusual", [None, None, [43, 64]]),
        ("untouched", [[40, 30], None, [43, 64]]),
        ("all", [[40, 30], [64, 43], [43, 64]]),
    ],
)
def test_pictures_that_are_not_left_to_img2dataset_are_finished(finish: Any, sizes: list[list[int] | None]) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    bodies = [picture(1, (40, 30)), picture(2, (96, 64)), picture(3, (96, 64), exif=turned)]
    resizing = EngineConfig(image_size=64).resizing
    found = inspect(*bodies, looking=Looking(resizing=resizing, finish=finish))
    assert [inspection.size for inspection in found] == sizes
    for inspection, body, size in zip(found, bodies, sizes, strict=True):
        made = Image.open(io.BytesIO(inspection.made or body))
        assert size is None or [*made.size] == size
        assert (inspection.made == b"") == (size is None or body is bodies[0])
        assert not inspection.made or not made.getexif()


def test_requests_and_replies_have_one_form() -> None:
    body = picture(1)
    head = b'{"kind": "image", "max_pixels": 1000000, "formats": ["JPEG"], "resizing": null, "bytes": %d}\n' % len(body)
    replies = io.BytesIO()
    serve(io.BytesIO((head + body) * 2), replies)
    lines = replies.getvalue().splitlines()
    assert len(lines) == 2 and lines[0] == lines[1] and b'"phash"' in lines[0]


def test_a_clip_is_told_by_its_container_not_by_its_name(tmp_path: Path) -> None:
    request = {"kind": "video", "max_pixels": MAX_PIXELS, "formats": []}
    assert inspect_bytes(picture(1), request).reason == "not_a_video"
