"""What a sample costs a model: known when it is built, so that a plan needs no decoding.

    Cost(text_tokens=31, trained_tokens=9, plain_tokens=14, plain_trained_tokens=8, cut_tokens=70, images=1, tiles=(7,))

Token counts are those of whole pictures, but for `cut_tokens`: chat style with every picture cut; None where none can
be (no picture, or frames). `tiles[k]` is how many pictures medium k becomes when it is cut (a frame stays one), global
view included.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from owl3.samples import Segment, Turn
from owl3.template import Chunk, Grid, Release, render
from owl3.tiling import choose_grid
from owl3.tokens import TextTokenizer


@dataclass(frozen=True, slots=True)
class Cost:
    """See the head of this file."""

    text_tokens: int
    trained_tokens: int
    plain_tokens: int
    plain_trained_tokens: int
    cut_tokens: int | None
    images: int
    tiles: tuple[int, ...]

    def as_row(self) -> dict[str, Any]:
        """The columns of the sample index."""
        return {name: getattr(self, name) for name in self.__slots__} | {"tiles": list(self.tiles)}


def cost_of(
    segments: Sequence[Segment],
    turns: Sequence[Turn],
    sizes: Sequence[tuple[int, int]],
    *,
    tokenizer: TextTokenizer,
    release: Release,
    tile_px: int,
) -> Cost:
    """Count a sample's tokens and tiles.

    Args:
        sizes: (width, height) of each medium, in reading order.
    """
    media = [segment for segment in segments if segment.medium is not None]
    cuttable = bool(media) and all(segment.frame is None for segment in media)
    grids = {
        number: _grid(width, height, tile_px)
        for number, (width, height) in enumerate(sizes)
        if media[number].frame is None
    }
    return Cost(
        *_count(tokenizer, render(segments, turns, release=release)),
        *_count(tokenizer, render(segments, turns, release=release, style="plain")),
        cut_tokens=_count(tokenizer, render(segments, turns, release=release, grids=grids))[0] if cuttable else None,
        images=len(media),
        tiles=tuple(grids[n][0] * grids[n][1] + 1 if n in grids else 1 for n in range(len(media))),
    )


@lru_cache(maxsize=4096)
def _grid(width: int, height: int, tile_px: int) -> Grid:
    """`choose_grid`, remembered: corpora have few different sizes."""
    return choose_grid(width, height, tile_px)


def _count(tokenizer: TextTokenizer, chunks: Sequence[Chunk]) -> tuple[int, int]:
    """All tokens, and trained ones."""
    tokens = trained = 0
    for chunk in chunks:
        count = tokenizer.count(chunk.text)
        tokens += count
        trained += count * chunk.trained
    return tokens, trained
