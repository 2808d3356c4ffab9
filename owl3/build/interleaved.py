"""`interleaved_caption`: K pictures with their captions in turn (facts/owl3.md §3.3).

document   [image] a red star\\n[image] two dogs\\n …                                (all text is trained)
turns      user: [image]   assistant: a red star   user: [image]   assistant: two dogs …
list       user: Image 1: [image] Image 2: [image] Describe each …   assistant: Image 1: a red star\\nImage 2: …
"""

from collections.abc import Sequence

from owl3.build.base import ComposedBuilder, Drawn
from owl3.build.config import InterleavedCaptionBuild
from owl3.build.drafts import Draft, Part, Script


class InterleavedCaptionBuilder(ComposedBuilder[InterleavedCaptionBuild]):
    """See the head of this file."""

    code_version = "1"
    words = "interleaved_caption"

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        drawn = self.drawn(rows)
        script = Script()
        if self.cfg.layout == "document":
            parts: list[Part] = []
            for medium, caption in zip(drawn.media, drawn.captions, strict=True):
                parts += ["\n" if parts else "", medium, caption]
            script.document(*parts)
        elif self.cfg.layout == "turns":
            for medium, caption in zip(drawn.media, drawn.captions, strict=True):
                script.turn("user", medium)
                script.turn("assistant", caption)
        else:
            self._write_list(script, drawn, ordinal)
        return Draft(
            kind="interleaved",
            script=script,
            parents=drawn.ids,
            source=drawn.source,
            licence=drawn.licence,
            extra=self.cfg.layout,
            meta={"layout": self.cfg.layout, "policy": self.cfg.policy},
        )

    def _write_list(self, script: Script, drawn: Drawn, ordinal: int) -> None:
        templates, dice = self.templates(), self.dice(ordinal)
        assert templates is not None
        language = self.language(drawn.captions[0])
        name, item = templates.pick("name", language, dice), templates.pick("item", language, dice)
        ask = templates.pick("ask", language, dice).format(n=len(drawn.media))
        asked: list[Part] = []
        for number, medium in enumerate(drawn.media, 1):
            asked += [name.format(k=number), medium, "\n"]
        script.turn("user", *asked, ask)
        lines = [item.format(k=number, caption=caption) for number, caption in enumerate(drawn.captions, 1)]
        script.turn("assistant", "\n".join(lines))
