"""Hostile text made harmless to read: captions and URLs come from strangers.

HTML escaping (the templates' job) stops scripts; it does not stop text that lies about its order, hides characters or
fills a page. `shown` makes those visible.
"""

from __future__ import annotations

import re
import unicodedata

# Bidirectional controls reorder the text around them; zero-width and tag characters hide.
_KEPT_CONTROLS = {"\n", "\t"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+|~!&$])")


def shown(text: str, most: int = 300) -> str:
    """Make control, format and unassigned characters visible as ⟨U+XXXX⟩ and cut at `most` characters."""
    cut = text[:most]
    out = "".join(_visible(character) for character in cut)
    return out if len(text) <= most else f"{out}… ({len(text):,} characters)"


def _visible(character: str) -> str:
    if character in _KEPT_CONTROLS:
        return " "
    if unicodedata.category(character) in ("Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"):
        return f"⟨U+{ord(character):04X}⟩"
    return character


def markdown(text: str, most: int = 300) -> str:
    """Text for a Markdown cell or line: markup escaped, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(shown(text, most).split()))
