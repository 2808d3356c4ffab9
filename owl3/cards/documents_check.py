"""Do the card's documents show the derived figures? Make them again and compare.

Documents are compared byte by byte, except for the thumbnails: JPEG codecs of two machines differ by a level or two, so
those are compared as pixels.
"""

from __future__ import annotations

import re
from pathlib import Path

from owl3.cards.findings import Check, compared, failed, passed
from owl3.cards.pictures import DATA_URI_PREFIX, from_data_uri, pixel_distance
from owl3.cards.render import DOCUMENTS, Content, documents

MAX_PIXEL_DISTANCE = 6.0
"""Mean levels of 255 by which two codecs' thumbnails of one picture may differ; other pictures differ by tens."""

_THUMBNAIL = re.compile(re.escape(DATA_URI_PREFIX) + r"[A-Za-z0-9+/=]+")


def compare_documents(folder: Path, content: Content) -> list[Check]:
    """Make every document from derived content and compare it with the card's."""
    made = documents(content)
    checks: list[Check] = []
    for name in DOCUMENTS:
        path = folder / name
        if not path.is_file():
            checks.append(failed("documents", name, "a document of the card", "missing"))
            continue
        stated, found = path.read_text(encoding="utf-8"), made[name].decode()
        if name == "card.html":
            checks.append(compare_thumbnails(stated, found))
            stated, found = without_thumbnails(stated), without_thumbnails(found)
        checks.append(
            passed("documents", name, "as derived") if stated == found else first_difference(name, stated, found)
        )
    return checks


def first_difference(name: str, stated: str, found: str) -> Check:
    """Name the first line at which two texts part."""
    left, right = stated.splitlines(), found.splitlines()
    for number, (a, b) in enumerate(zip(left, right, strict=False), start=1):
        if a != b:
            return failed("documents", f"{name} line {number}", a, b)
    return compared("documents", f"{name} lines", len(left), len(right))


def without_thumbnails(page: str) -> str:
    """A page with a word in the place of each picture."""
    return _THUMBNAIL.sub("picture", page)


def compare_thumbnails(stated: str, found: str) -> Check:
    """Whether two pages show the same pictures, in order."""
    left, right = _THUMBNAIL.findall(stated), _THUMBNAIL.findall(found)
    if len(left) != len(right):
        return failed("documents", "card.html pictures", len(left), len(right))
    for number, (a, b) in enumerate(zip(left, right, strict=True), start=1):
        try:
            distance = 0.0 if a == b else pixel_distance(from_data_uri(a), from_data_uri(b))
        except (OSError, ValueError) as error:
            return failed("documents", f"card.html picture {number}", "a thumbnail", str(error))
        if distance > MAX_PIXEL_DISTANCE:
            return failed(
                "documents", f"card.html picture {number}", "the sample's picture", f"{distance:.0f} levels apart"
            )
    return passed("documents", "card.html pictures", f"{len(left)} pictures")
