"""`long_image`: tens to hundreds of pictures, and a question about the one at a controlled depth.

user: Image 1: [image]\\nImage 2: [image]\\n … Image 200: [image]\\nWhat does image 131 of the 200 images show?
assistant: a red star on the left

With `lengths` and `depths` the samples walk through a grid of both, cell by cell, so every cell is filled equally.
"""

from collections.abc import Sequence

import numpy as np

from owl3.build.base import ComposedBuilder
from owl3.build.config import LongImageBuild
from owl3.build.drafts import Draft, Part, Refused, Script
from owl3.build.draw import Int64s


class LongImageBuilder(ComposedBuilder[LongImageBuild]):
    """See the head of this file."""

    code_version = "1"
    words = "long_image"

    def sizes(self, ordinals: Int64s) -> Int64s:
        """Evenly over the range, or the given lengths in turn."""
        if not self.cfg.lengths:
            return super().sizes(ordinals)
        lengths = np.minimum(np.array(self.cfg.lengths, dtype=np.int64), len(self.pool))
        found: Int64s = lengths[ordinals % len(lengths)]
        return found

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        drawn, dice, templates = self.drawn(rows), self.dice(ordinal), self.templates()
        assert templates is not None
        cell = ordinal // max(1, len(self.cfg.lengths)) % self.cfg.depths
        target = needle_place(cell, self.cfg.depths, len(rows), dice.below(1 << 32, "needle") / (1 << 32))
        caption = drawn.captions[target]
        if self.cfg.task == "find" and drawn.captions.count(caption) > 1:
            raise Refused("caption_repeated", f"{caption!r} fits several of the pictures")
        language = self.language(caption)
        name = templates.pick("name", language, dice)
        words = templates.pick(self.cfg.task, language, dice)
        ask = words.format(n=len(rows), k=target + 1, caption=caption)
        asked: list[Part] = []
        for number, medium in enumerate(drawn.media, 1):
            asked += [name.format(k=number), medium, "\n"]
        script = Script()
        script.turn("user", *asked, ask)
        script.turn("assistant", caption if self.cfg.task == "caption" else str(target + 1))
        return Draft(
            kind="long_image",
            script=script,
            parents=drawn.ids,
            source=drawn.source,
            licence=drawn.licence,
            extra=ask,
            meta={"target": target, "depth": cell, "depths": self.cfg.depths, "images": len(rows)},
        )


def needle_place(cell: int, cells: int, length: int, within: float) -> int:
    """The index of the needle: in the `cell`-th of `cells` equal parts of the sequence, `within` (0 … 1) of that."""
    return min(length - 1, int((cell + within) * length / cells))
