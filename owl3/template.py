r"""What the model reads: a conversation as labelled chunks of text. The one source of truth for costs and for ids.

    >>> turns = [Turn(role="user", start=0, end=2), Turn(role="assistant", start=2, end=3)]
    >>> segments = [Segment(image=0), Segment(text="What is it?"), Segment(text="A cat.")]
    >>> for chunk in render(segments, turns, release="241101"): print(chunk)
    Chunk('<|im_start|>system\n<|im_end|>')
    Chunk('\n<|im_start|>user\n')
    Chunk('<|image|>', medium=0)
    Chunk('What is it?<|im_end|>')
    Chunk('\n<|im_start|>assistant\n')
    Chunk('A cat.<|im_end|>', trained=True)
    Chunk('<|endoftext|>', trained=True)

Each chunk is tokenised alone, so no merge crosses a border: the ids depend on where the borders are, not only on the
text. The k-th placeholder chunk belongs to the k-th picture that the image processor gives: a cut image is its tiles,
row by row, then its global view; a video is its frames.

Source: the processors of the three releases of mPLUG-Owl3 (7B-240728, 1B/2B-241014, 7B-241101).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from owl3.samples import Segment, Turn
from owl3.tokens import END_OF_TEXT, PLACEHOLDER, TURN_END, TURN_START, TextTokenizer

Release = Literal["240728", "241014", "241101"]
Style = Literal["chat", "plain"]
Grid = tuple[int, int]
"""(rows, columns) of a cut image."""

RELEASES: tuple[Release, ...] = ("240728", "241014", "241101")


class Chunk(NamedTuple):
    """A piece of text that is tokenised alone.

    `trained`: the model learns to say it. `medium`: the number of the medium that it is a placeholder of; the
    placeholders of one cut image share a number.
    """

    text: str
    trained: bool = False
    medium: int | None = None

    def __repr__(self) -> str:
        shown = [repr(self.text)]
        shown += ["trained=True"] * self.trained + [f"medium={self.medium}"] * (self.medium is not None)
        return f"Chunk({', '.join(shown)})"


@dataclass
class TokenizedText:
    """Chunks as ids.

    `trained[i]` says whether token i is learned, `image_starts[k]` where the k-th picture's placeholder begins, and
    `media[k]` which medium it shows.
    """

    input_ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    image_starts: list[int] = field(default_factory=list)
    media: list[int] = field(default_factory=list)


def render(
    segments: Sequence[Segment],
    turns: Sequence[Turn],
    *,
    release: Release = "241101",
    style: Style = "chat",
    grids: Mapping[int, Grid] | None = None,
    for_generation: bool = False,
) -> list[Chunk]:
    """Write a sample the way a release was trained to read it.

    Args:
        segments: Text and media in reading order; consecutive frames are one video (a new one begins where the time
            goes back).
        turns: Who says which segments. None at all: a document, whose text is all trained.
        release: Whose template; they differ in how cut images and videos are written.
        style: `chat` wraps turns in roles; `plain` puts content and answer side by side (captions).
        grids: The (rows, columns) of each image that is cut, by medium number; the others stay whole.
        for_generation: Leave out a last assistant turn's words, and stop where the model should go on.
    """
    pieces = _Pieces(release, grids or {})
    if not turns:
        return [*pieces.of(segments, trained=True), Chunk(END_OF_TEXT, trained=True)]
    chunks: list[Chunk] = []
    if style == "chat" and turns[0].role != "system":
        chunks.append(Chunk(f"{TURN_START}system\n{TURN_END}"))
    for index, turn in enumerate(turns):
        said = segments[turn.start : turn.end]
        is_last = index == len(turns) - 1
        if turn.role == "assistant":
            if style == "chat":
                chunks.append(Chunk(f"\n{TURN_START}assistant\n"))
            if is_last and for_generation:
                return chunks
            chunks += pieces.of(said, trained=True, suffix=TURN_END if style == "chat" else "")
            chunks.append(Chunk(END_OF_TEXT, trained=True))
        elif style == "chat":
            newline = "" if turn.role == "system" else "\n"
            chunks += pieces.of(said, prefix=f"{newline}{TURN_START}{turn.role}\n", suffix=TURN_END)
        else:
            chunks += pieces.of(said)
    if for_generation and style == "chat":
        chunks.append(Chunk(f"\n{TURN_START}assistant\n"))
    return chunks


def tokenize(chunks: Iterable[Chunk], tokenizer: TextTokenizer, max_tokens: int | None = None) -> TokenizedText:
    """Turn chunks into ids.

    Args:
        max_tokens: Keep at most so many tokens. A placeholder is never cut: where one would be, the text stops before
            its medium, so that an image is read whole (all its tiles) or not at all.
    """
    chunks = list(chunks)
    result = TokenizedText()
    for chunk in chunks:
        ids = tokenizer.encode(chunk.text)
        room = len(ids) if max_tokens is None else max_tokens - len(result.input_ids)
        fits = len(ids) <= room
        if chunk.medium is not None and fits:
            result.image_starts.append(len(result.input_ids))
            result.media.append(chunk.medium)
        if chunk.medium is None or fits:
            result.input_ids += ids[:room]
            result.trained += [chunk.trained] * min(len(ids), room)
        if not fits:
            _drop_partial_medium(result, chunks)
            break
    return result


def _drop_partial_medium(text: TokenizedText, chunks: Sequence[Chunk]) -> None:
    """Take back the placeholders of a medium that did not fit whole, and all that follows the first of them."""
    if text.media and text.media.count(text.media[-1]) < sum(chunk.medium == text.media[-1] for chunk in chunks):
        first = text.media.index(text.media[-1])
        del text.input_ids[text.image_starts[first] :], text.trained[text.image_starts[first] :]
        del text.image_starts[first:], text.media[first:]


class _Pieces:
    """Writes the segments of one turn: joins text, and puts a release's words around images and videos."""

    def __init__(self, release: Release, grids: Mapping[int, Grid]) -> None:
        if release not in RELEASES:
            raise ValueError(f"unknown release {release!r}: one of {', '.join(RELEASES)}")
        self.release = release
        self.grids = grids

    def of(
        self, segments: Sequence[Segment], *, prefix: str = "", suffix: str = "", trained: bool = False
    ) -> list[Chunk]:
        """Chunks of a turn: text between two pictures is one chunk, with the turn's header or end where it stands."""
        parts: list[str | int] = [prefix]
        has_frames = any(segment.frame is not None for segment in segments)
        before: Segment | None = None
        for segment in [*segments, None]:
            if has_frames:
                parts += self._video_border(before, segment)
            if segment is not None:
                parts += self._parts(segment)
            before = segment
        parts.append(suffix)
        return _join(parts, trained)

    def _parts(self, segment: Segment) -> list[str | int]:
        if segment.text is not None:
            return [segment.text]
        medium = segment.medium
        assert medium is not None
        if segment.image is None or medium not in self.grids:
            return [medium]
        rows, columns = self.grids[medium]
        return self._cut(medium, rows, columns)

    def _cut(self, medium: int, rows: int, columns: int) -> list[str | int]:
        """The words around a cut image's tiles; the global view comes last."""
        if self.release == "240728":
            parts: list[str | int] = [f"Cut to {rows} rows {columns} columns with a global view"]
            for row in range(rows):
                for column in range(columns):
                    parts += [f"{' ' if column else chr(10)}subimg({row},{column})", medium]
            return [*parts, "\nglobal_view", medium]
        parts = [f"<|start_cut|>{rows}*{columns}"]
        for _ in range(rows):
            for column in range(columns):
                parts += [" " if column else "\n", medium]
        return [*parts, "\n", medium, "<|end_cut|>"]

    def _video_border(self, before: Segment | None, after: Segment | None) -> list[str | int]:
        """What stands between two segments: the markers where a video ends or begins."""
        was_video, is_video = (s is not None and s.frame is not None for s in (before, after))
        same_video = was_video and is_video and before.time_s <= after.time_s  # type: ignore[union-attr, operator]
        if self.release == "240728" or same_video:
            return []
        borders: list[str | int] = ["<|end_video_frame|>"] * was_video
        return [*borders, *["<|start_video_frame|>"] * is_video]


def _join(parts: Sequence[str | int], trained: bool) -> list[Chunk]:
    """Join neighbouring text; each medium number becomes a placeholder chunk of its own."""
    chunks: list[Chunk] = []
    text = ""
    for part in parts:
        if isinstance(part, str):
            text += part
            continue
        if text:
            chunks.append(Chunk(text, trained))
        chunks.append(Chunk(PLACEHOLDER, medium=part))
        text = ""
    if text:
        chunks.append(Chunk(text, trained))
    return chunks
