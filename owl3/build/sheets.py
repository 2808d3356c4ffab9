"""Contact sheets: samples with their pictures in reading order, as one PNG or one HTML page without other files."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from owl3.build.inspect import Shown
from owl3.media import MediaError, open_image, thumbnail

_WIDTH_PX = 1200
_MARGIN_PX = 16
_THUMB_PX = 110
_TEXT_PX = 15
_LINE_PX = 20
_MANY = 16
"""More pictures than this are drawn half as high, and not each on a line of its own."""
_MAX_MEDIA = 400
"""Pictures of one sample on a sheet; of the rest it says how many they are."""
_INK = {"title": "#666666", "user": "#1a4f8b", "assistant": "#1c7a3a", "system": "#8a5a00", "document": "#222222"}


@dataclass
class _Flow:
    """Places words and pictures line by line, like a page of text."""

    canvas: Image.Image | None
    """None: only measure."""
    y: int = _MARGIN_PX
    x: int = _MARGIN_PX
    height: int = _LINE_PX
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont = field(default_factory=lambda: ImageFont.load_default(_TEXT_PX))

    def line(self, gap_px: int = 0) -> None:
        """Begin a new line."""
        self.y += self.height + gap_px
        self.x, self.height = _MARGIN_PX, _LINE_PX

    def words(self, text: str, ink: str) -> None:
        """Write text, breaking lines between words (Chinese: anywhere)."""
        for paragraph_number, paragraph in enumerate(text.split("\n")):
            if paragraph_number:
                self.line()
            for word in _words(paragraph):
                width = int(self.font.getlength(word))
                if self.x + width > _WIDTH_PX - _MARGIN_PX and self.x > _MARGIN_PX:
                    self.line()
                if self.canvas is not None:
                    ImageDraw.Draw(self.canvas).text((self.x, self.y), word, font=self.font, fill=ink)
                self.x += width

    def picture(self, image: Image.Image) -> None:
        """Place a thumbnail, and make the line as high as it is."""
        if self.x + image.width > _WIDTH_PX - _MARGIN_PX:
            self.line()
        self.height = max(self.height, image.height + 6)
        if self.canvas is not None:
            self.canvas.paste(image, (self.x, self.y))
        self.x += image.width + 6


def png_sheet(samples: Sequence[Shown]) -> bytes:
    """Draw samples one below the other. Letters that the built-in font lacks show as boxes; HTML has them all."""
    height = _draw(samples, None)
    canvas = Image.new("RGB", (_WIDTH_PX, height), "white")
    _draw(samples, canvas)
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw(samples: Sequence[Shown], canvas: Image.Image | None) -> int:
    """Lay everything out; return the height."""
    flow = _Flow(canvas)
    for shown in samples:
        flow.words(f"{shown.title}\n{shown.origin}", _INK["title"])
        flow.line(2)
        for role, parts in _turns(shown):
            flow.words(f"{role}: ", _INK[role])
            for part in parts:
                if isinstance(part, str):
                    flow.words(part, _INK[role])
                else:
                    flow.picture(_thumb(part.data, part.side_px))
            flow.line(4)
        flow.line(_MARGIN_PX - _LINE_PX)
        if canvas is not None:
            ImageDraw.Draw(canvas).line([(0, flow.y - 8), (_WIDTH_PX, flow.y - 8)], fill="#dddddd")
    return flow.y + _MARGIN_PX


@dataclass(frozen=True)
class _Picture:
    """A medium in reading order."""

    data: bytes | None
    label: str
    side_px: int


def _turns(shown: Shown) -> Iterator[tuple[str, list[str | _Picture]]]:
    """(role, texts and pictures) of each turn; a document is one turn of its own."""
    sample = shown.sample
    spans = [(str(turn.role), turn.start, turn.end) for turn in sample.turns] or [("document", 0, len(sample.segments))]
    many = sample.num_media > _MANY
    side_px = _THUMB_PX // 2 if many else _THUMB_PX
    left = _MAX_MEDIA
    for role, start, end in spans:
        parts: list[str | _Picture] = []
        hidden = 0
        for segment in sample.segments[start:end]:
            if segment.medium is None:
                text = segment.text or ""
                parts.append(f"  {text.removeprefix(chr(10))}" if many and text.startswith("\n") and parts else text)
            elif left > 0:
                left -= 1
                label = f"{segment.time_s:g} s" if segment.time_s is not None else f"image {segment.medium}"
                parts.append(_Picture(shown.media[segment.medium], label, side_px))
            else:
                hidden += 1
        if hidden:
            parts.append(f" (+{hidden} more pictures)")
        yield role, parts


def _words(text: str) -> list[str]:
    """Pieces between which a line may break, blanks kept with the word before."""
    words: list[str] = []
    for character in text:
        if not words or words[-1].endswith(" ") or ord(character) >= 0x2E80:
            words.append(character)
        else:
            words[-1] += character
    return words


def _thumb(data: bytes | None, side_px: int) -> Image.Image:
    """A picture for the sheet, `side_px` high; a grey cross for one that is gone."""
    if data is not None:
        try:
            image = open_image(data)
            image.thumbnail((2 * side_px, side_px), Image.Resampling.BICUBIC)
            return image
        except MediaError:
            pass  # drawn as gone
    image = Image.new("RGB", (side_px, side_px), "#eeeeee")
    ImageDraw.Draw(image).line([(0, 0), (side_px, side_px)], fill="#999999", width=2)
    ImageDraw.Draw(image).line([(0, side_px), (side_px, 0)], fill="#999999", width=2)
    return image


_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:1rem auto;padding:0 1rem;color:#222}}
article{{border-top:1px solid #ddd;padding:.8rem 0}}h2{{font:13px monospace;color:#666;margin:0}}
p{{margin:.4rem 0;white-space:pre-wrap}}p b{{font-weight:600}}.user{{color:#1a4f8b}}.assistant{{color:#1c7a3a}}
.system{{color:#8a5a00}}img{{margin:2px 4px;vertical-align:middle}}small{{color:#666}}</style>
<h1>{title}</h1>{articles}</html>"""


def html_sheet(title: str, samples: Sequence[Shown]) -> str:
    """Write samples as a page of its own: thumbnails are inside of it."""
    articles = []
    for shown in samples:
        turns = []
        for role, parts in _turns(shown):
            inner = "".join(html.escape(part) if isinstance(part, str) else _tag(part) for part in parts)
            turns.append(f'<p class="{role}"><b>{role}:</b> {inner}</p>')
        head = f"<h2>{html.escape(shown.title)}</h2><small>{html.escape(shown.origin)}</small>"
        articles.append(f"<article>{head}{''.join(turns)}</article>")
    return _PAGE.format(title=html.escape(title), articles="".join(articles))


def _tag(picture: _Picture) -> str:
    label = html.escape(picture.label)
    try:
        data = thumbnail(picture.data, 2 * picture.side_px) if picture.data is not None else b""
    except MediaError:
        data = b""
    if not data:
        return f"<small>[{label} is gone]</small>"
    encoded = base64.b64encode(data).decode()
    return f'<img height="{picture.side_px}" alt="{label}" title="{label}" src="data:image/jpeg;base64,{encoded}">'
