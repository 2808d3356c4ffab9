"""`selective_caption`: N pictures, and the caption of the one that is asked for (facts/owl3.md §3.3).

user: Image 1: [image] … Image 4: [image] Describe the second image.   assistant: two dogs on a beach
"""

from collections.abc import Sequence

from owl3.build.base import ComposedBuilder
from owl3.build.config import SelectiveCaptionBuild
from owl3.build.drafts import Draft, Part, Script

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")


class SelectiveCaptionBuilder(ComposedBuilder[SelectiveCaptionBuild]):
    """See the head of this file."""

    code_version = "1"
    words = "selective_caption"

    def draft(self, ordinal: int, rows: Sequence[int]) -> Draft:
        """See `Builder`."""
        drawn, dice, templates = self.drawn(rows), self.dice(ordinal), self.templates()
        assert templates is not None
        target = dice.below(len(drawn.media), "target")
        caption = drawn.captions[target]
        language = self.language(caption)
        name = templates.pick("name", language, dice)
        words = templates.pick("ask", language, dice)
        ask = words.format(k=target + 1, n=len(drawn.media), kth=kth(target + 1, language))
        asked: list[Part] = []
        for number, medium in enumerate(drawn.media, 1):
            asked += [name.format(k=number), medium, "\n"]
        script = Script()
        script.turn("user", *asked, ask)
        script.turn("assistant", caption)
        return Draft(
            kind="selective",
            script=script,
            parents=drawn.ids,
            source=drawn.source,
            licence=drawn.licence,
            extra=ask,
            meta={"target": target, "policy": self.cfg.policy},
        )


def kth(number: int, language: str) -> str:
    """A number as a place in order: second, 12th, 第二."""
    if language == "zh":
        return f"第{_chinese(number)}"
    if number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _chinese(number: int) -> str:
    digits = "零一二三四五六七八九"
    if number < 10:
        return digits[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return f"{'' if tens == 1 else digits[tens]}十{digits[ones] if ones else ''}"
    return str(number)
