"""`caption`: one picture and its caption, what the first stage trains on.

user: [image]   assistant: a red star on the left
"""

from collections.abc import Sequence

from owl3.build.base import PoolBuilder
from owl3.build.config import CaptionBuild
from owl3.build.drafts import Draft, Refused, Script, clean_text
from owl3.build.pool import medium_of


class CaptionBuilder(PoolBuilder[CaptionBuild]):
    """See the head of this file."""

    code_version = "1"
    words = "caption"

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        parent = self.pool[rows[0]]
        caption = clean_text(parent["caption"] or "")
        if not caption:
            raise Refused("empty_text")
        script = Script()
        ask = ""
        if self.cfg.prompt:
            templates = self.templates()
            assert templates is not None
            ask = templates.pick("ask", self.language(caption), self.dice(ordinal))
        script.turn("user", medium_of(parent, rows[0]), ask)
        script.turn("assistant", caption)
        return Draft(
            kind="image_text",
            script=script,
            parents=(parent["sample_id"],),
            source=parent["source"] or "unknown",
            licence=parent["licence"] or "unknown",
            extra=ask,
        )
