"""Contact sheets: samples with their pictures in reading order, as one PNG or one HTML page without other files."""

import base64
import html
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from PIL import Image, ImageDraw, ImageFont

from owl3.build.inspect import Shown
from owl3.media import MediaError, open_image, thumbnail

_WIDTH_PX = 1200
_MARGIN_PX = 16
_COLUMN_PX = (_WIDTH_PX - 3 * _MARGIN_PX) // 2
_LABEL_LETTERS = 24
_FEW = 8
"""Samples of no more pictures than this stand in two columns."""
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
    left: int = _MARGIN_PX
    width: int = _WIDTH_PX - 2 * _MARGIN_PX
    y: int = _MARGIN_PX
    x: int = 0
    height: int = _LINE_PX
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont = field(default_factory=lambda: ImageFont.load_default(_TEXT_PX))

    def __post_init__(self) -> None:
        self.x = self.left

    def line(self, gap_px: int = 0) -> None:
        """Begin a new line."""
        self.y += self.height + gap_px
        self.x, self.height = self.left, _LINE_PX

    def keep(self, label: str, more_px: int) -> None:
        """Begin a new line where a label ("Image 2:") would be torn from the picture behind it."""
        is_label = more_px > 0 and len(label) < _LABEL_LETTERS and self.x > self.left
        if is_label and self.x + self.font.getlength(label) + more_px > self.left + self.width:
            self.line()

    def words(self, text: str, ink: str) -> None:
        """Write text, breaking lines between words (Chinese: anywhere)."""
        for paragraph_number, paragraph in enumerate(text.split("\n")):
            if paragraph_number:
                self.line()
            for word in _words(paragraph):
                width = int(self.font.getlength(word))
                if self.x + width > self.left + self.width and self.x > self.left:
                    self.line()
                if self.canvas is not None:
                    ImageDraw.Draw(self.canvas).text((self.x, self.y), word, font=self.font, fill=ink)
                self.x += width

    def picture(self, image: Image.Image) -> None:
        """Place a thumbnail, and make the line as high as it is."""
        if self.x + image.width > self.left + self.width:
            self.line()
        self.height = max(self.height, image.height + 6)
        if self.canvas is not None:
            self.canvas.paste(image, (self.x, self.y))
        self.x += image.width + 6


def png_sheet(samples: Sequence[Shown]) -> bytes:
    """Draw samples below and beside each other. Letters that the font lacks show as boxes; HTML has them all."""
    columns = 2 if len(samples) > 1 and all(shown.sample.num_media <= _FEW for shown in samples) else 1
    width = _COLUMN_PX if columns == 2 else _WIDTH_PX - 2 * _MARGIN_PX
    ends = [_MARGIN_PX] * columns
    places: list[tuple[Shown, int, int]] = []
    for shown in samples:
        column = ends.index(min(ends))
        left = _MARGIN_PX + column * (width + _MARGIN_PX)
        places.append((shown, left, ends[column]))
        ends[column] = _draw(shown, _Flow(None, left, width, ends[column]))
    canvas = Image.new("RGB", (_WIDTH_PX, max(ends)), "white")
    for shown, left, top in places:
        _draw(shown, _Flow(canvas, left, width, top))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _draw(shown: Shown, flow: _Flow) -> int:
    """Lay one sample out, a line below it; return where the next begins. An answer stands behind its question."""
    flow.words(f"{shown.sample.id}\n{shown.what}\n{shown.origin}", _INK["title"])
    flow.line(2)
    before = ""
    for role, parts in _turns(shown):
        if before:
            flow.words("  ", _INK[role]) if (before, role) == ("user", "assistant") else flow.line(4)
        before = role
        flow.words(f"{role}: ", _INK[role])
        for part, after in zip_longest(parts, parts[1:]):
            if isinstance(part, str):
                flow.keep(part, 0 if isinstance(after, str | None) else after.side_px)
                flow.words(part, _INK[role])
            else:
                flow.picture(_thumb(part.data, part.side_px))
    flow.line(_MARGIN_PX - 8)
    if flow.canvas is not None:
        ends = [(flow.left, flow.y), (flow.left + flow.width, flow.y)]
        ImageDraw.Draw(flow.canvas).line(ends, fill="#dddddd")
    return flow.y + 8


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


_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{title}</title><link rel="icon" href="data:,">
<style>:root{{color-scheme:light dark;--ink:#222;--quiet:#5f5f5f;--line:#ddd;--user:#1a4f8b;
--answer:#1c6b3a;--system:#7a5000}}
@media(prefers-color-scheme:dark){{:root{{--ink:#e6eaee;--quiet:#a3adb8;--line:#3a444f;--user:#8fbdf2;
--answer:#7fd19b;--system:#e0b45c}}
body{{background:#12171d}}}}
body{{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:1rem auto;padding:0 1rem;color:var(--ink)}}
main{{columns:2 26rem;column-gap:2rem}}article{{border-top:1px solid var(--line);padding:.8rem 0;break-inside:avoid}}
h1{{font-size:1.5rem}}h2{{font:13px ui-monospace,monospace;color:var(--quiet);margin:0;overflow-wrap:anywhere}}
p{{margin:.4rem 0;white-space:pre-wrap;overflow-wrap:anywhere}}b{{font-weight:600}}.user{{color:var(--user)}}
.assistant{{color:var(--answer)}}.system{{color:var(--system)}}small{{color:var(--quiet)}}
img{{margin:2px 4px;vertical-align:middle;max-width:100%}}</style></head>
<body><h1>{title}</h1><main>{articles}</main></body></html>"""


def html_sheet(title: str, samples: Sequence[Shown]) -> str:
    """Write samples as a page of its own: thumbnails are inside of it."""
    articles = []
    for shown in samples:
        exchanges: list[str] = []
        before = ""
        for role, parts in _turns(shown):
            inner = "".join(html.escape(part) if isinstance(part, str) else _tag(part) for part in parts)
            turn = f'<span class="{role}"><b>{role}:</b> {inner}</span>'
            if (before, role) == ("user", "assistant"):  # behind its question
                exchanges[-1] += f"  {turn}"
            else:
                exchanges.append(turn)
            before = role
        head = f"<h2>{shown.sample.id}</h2><small>{html.escape(shown.what)}<br>{html.escape(shown.origin)}</small>"
        articles.append(f"<article>{head}{''.join(f'<p>{exchange}</p>' for exchange in exchanges)}</article>")
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
