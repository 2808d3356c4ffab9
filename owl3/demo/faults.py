"""What goes wrong with the demo's corpus, how often, and under which reason it must be counted.

The web as a crawler meets it, in small: each fault is a few rows of the table whose URL misbehaves in one way. The
counts are fixed, so that `expected` is exact and a test can hold the whole chain to it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Literal

PHOTOS, CLIPS, MIRROR = "photos.owl3.test", "clips.owl3.test", "mirror.owl3.test"

Behaviour = Literal["serve", "status", "busy_once", "stall", "drip", "redirect"]


@dataclass(frozen=True)
class Fault:
    """Rows that go wrong in one way.

    Attributes:
        name: What is wrong, as a word for file and path names.
        count: How many rows of the table have it.
        reason: The drop reason it must be counted under, None when the row must be kept all the same.
        artifact: Where it is counted, as kind and name of the demo recipe's artifact.
        host: Which virtual host serves it.
        behaviour: What the server does; `serve` sends the file, whatever is wrong with it.
        status: For `status`.
        headers: Sent with the answer.
        target: For `redirect`.
    """

    name: str
    count: int
    reason: str | None
    artifact: str = "shards scenes"
    host: str = PHOTOS
    behaviour: Behaviour = "serve"
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    target: str = ""


FAULTS = (
    Fault("bad-url", 2, "bad_url", artifact="source scenes"),
    Fault("no-caption", 3, "missing_caption", artifact="source scenes"),
    Fault("same-row", 2, "duplicate_row", artifact="source scenes"),
    Fault("missing", 6, "not_found", behaviour="status", status=404),
    Fault("busy-once", 5, None, behaviour="busy_once"),
    Fault("busy", 3, "server_error", behaviour="status", status=503),
    Fault("stalled", 2, "timeout", host="stall.owl3.test", behaviour="stall"),
    Fault("drip", 1, "too_slow", host="drip.owl3.test", behaviour="drip"),
    Fault("truncated", 4, "truncated_image"),
    Fault("web-page", 4, "not_an_image"),
    Fault("bomb", 2, "decompression_bomb"),
    Fault("to-private", 2, "private_address", host="away.owl3.test", behaviour="redirect", target="http://10.0.0.1/"),
    Fault(
        "to-metadata",
        1,
        "private_address",
        host="away.owl3.test",
        behaviour="redirect",
        target="http://169.254.169.254/latest/meta-data/",
    ),
    Fault("robots", 5, "robots_disallowed", host="robots.owl3.test"),
    Fault("noai", 4, "opt_out_header", host="noai.owl3.test", headers=(("X-Robots-Tag", "noai"),)),
    Fault("tdm", 3, "tdm_reserved", host="tdm.owl3.test", headers=(("tdm-reservation", "1"),)),
    Fault("not-free", 3, "licence_not_allowed"),
    Fault("unsafe", 2, "unsafe"),
    Fault("mismatch", 3, "low_clip_similarity"),
    Fault("copy", 6, "duplicate_exact", host=MIRROR),
    Fault("near-copy", 6, "duplicate_near", host=MIRROR),
    Fault("leaked", 3, "contaminated"),
    Fault("no-picture", 4, "missing_media", artifact="samples talks"),
)
"""The schedule. `same-row` repeats a row of the table; `no-picture` asks about pictures of `missing`."""

ROBOTS_TXT = {
    PHOTOS: "User-agent: *\nDisallow: /private/\n",
    "robots.owl3.test": "User-agent: *\nDisallow: /\n",
}
"""robots.txt per host; a host that is not here answers 404, which allows everything."""


def fault(name: str) -> Fault:
    """The fault of that name."""
    return next(fault for fault in FAULTS if fault.name == name)


def expected_drops(artifact: str) -> dict[str, int]:
    """How many rows must be dropped under each reason in `artifact`."""
    drops: dict[str, int] = {}
    for entry in FAULTS:
        if entry.artifact == artifact and entry.reason is not None:
            drops[entry.reason] = drops.get(entry.reason, 0) + entry.count
    return dict(sorted(drops.items()))


def bomb_png(side_px: int = 20_000) -> bytes:
    """A valid one-bit PNG of `side_px` squared: about 50 kB to fetch, 400 million pixels to decode."""
    deflate = zlib.compressobj(9)
    row = bytes(1 + (side_px + 7) // 8)
    packed = [deflate.compress(row * 100) for _ in range(side_px // 100)]
    header = struct.pack(">IIBBBBB", side_px, side_px, 1, 0, 0, 0, 0)
    body = b"".join([*packed, deflate.flush()])
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def web_page(number: int) -> bytes:
    """What a dead picture host sends instead of a picture, with status 200."""
    return f"<!doctype html><title>Picture {number}</title><p>This picture has moved. Please log in.</p>\n".encode()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
