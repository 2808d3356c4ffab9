"""Captions from which curation took something out: what can still be proved of them.

A redacted caption holds a mark where an address or a number stood. Its sample's id is the hash of the caption as it
came, which only the source has. So the source's caption must hash to the id, and must read like the redacted one
everywhere but at the marks.
"""

from __future__ import annotations

import re

from owl3.samples import REDACTIONS, url_sample_id


def agrees(sample_id: str, url: str, caption: str, redacted: str) -> bool:
    """Whether `redacted` is the caption of this sample with something taken out, and nothing else changed.

    Args:
        caption: As the source has it.
    """
    kept = [re.escape(part) for part in REDACTIONS.split(redacted)]
    return url_sample_id(url, caption) == sample_id and re.fullmatch(".+?".join(kept), caption, re.DOTALL) is not None
