"""Cut samples that are longer than a row into parts that stand on their own. Never through a placeholder.

A document is cut between segments, and no part ends with pictures that nothing speaks of. A conversation is cut between
exchanges; every part keeps the system turn, and a conversation about pictures is only cut where each part has some of
its own: an answer about a picture that went to another part would teach guessing. What can't be cut so is dropped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from owl3.data.costs import CostTable, PromptStyle
from owl3.errors import InputError
from owl3.planfile import PART_DTYPE
from owl3.sampleindex import kept_rows
from owl3.samples import Sample, Segment, Turn
from owl3.shards import read_member
from owl3.template import Release, render, tokenize
from owl3.tokens import TextTokenizer

Range = tuple[int, int]
"""Half-open range over a sample's segments, its system turn left aside."""


@dataclass(frozen=True)
class Limits:
    """What a row holds, and how costs are counted."""

    max_tokens: int
    max_tiles: int
    tokenizer: TextTokenizer
    release: Release
    style: PromptStyle

    def cost(self, sample: Sample) -> tuple[int, int]:
        """Tokens and trained tokens."""
        chunks = render(sample.segments, sample.turns, release=self.release, style=self.style)
        text = tokenize(chunks, self.tokenizer)
        return len(text.input_ids), sum(text.trained)

    def hold(self, sample: Sample) -> bool:
        """Whether a row could hold it."""
        return sample.num_media <= self.max_tiles and self.cost(sample)[0] <= self.max_tokens


def split_long(
    workspace: Path, table: CostTable, too_long: npt.NDArray[np.intp], limits: Limits
) -> npt.NDArray[np.void]:
    """Cut samples of one dataset; return their parts, with positions counted within the dataset."""
    parts: list[tuple[int, int, int, int, int, int]] = []
    for position, sample in _read(workspace, table, too_long):
        for start, end in cut_points(sample, limits.hold):
            part = part_of(sample, start, end)
            parts.append((position, start, end, *limits.cost(part), part.num_media))
    return np.array(parts, dtype=PART_DTYPE)


def cut_points(sample: Sample, holds: Callable[[Sample], bool]) -> list[Range]:
    """Cut a sample into the fewest parts from front to back; none when it can't be cut so that each part is held."""
    edges = _edges(sample)
    ranges: list[Range] = []
    at = 0
    while at < len(edges) - 1:
        start = edges[at]
        # Costs grow with the range: the first that does not fit ends the search, or long pages would take for ever.
        while at < len(edges) - 1 and holds(part_of(sample, start, edges[at + 1])):
            at += 1
        if at < len(edges) - 1 and not sample.turns:
            while at > 0 and edges[at] > start and sample.segments[edges[at] - 1].text is None:
                at -= 1
        if edges[at] <= start:
            return []
        ranges.append((start, edges[at]))
    if sample.turns and sample.num_media:
        parts = [part_of(sample, *part) for part in ranges]
        if not all(part.num_media for part in parts):
            return []
    return ranges


def part_of(sample: Sample, start: int, end: int) -> Sample:
    """The sample made of its system turn and the segments `start` to `end`; its media are numbered anew."""
    kept = [*range(_system_end(sample)), *range(start, end)]
    segments: list[Segment] = []
    for number in kept:
        segment = sample.segments[number]
        if segment.medium is not None:
            renumbered = sum(s.medium is not None for s in segments)
            key = "image" if segment.image is not None else "frame"
            segment = segment.model_copy(update={key: renumbered})
        segments.append(segment)
    place = {number: k for k, number in enumerate(kept)}
    turns = [
        Turn(role=turn.role, start=place[turn.start], end=place[turn.end - 1] + 1)
        for turn in sample.turns
        if turn.start in place and turn.end > turn.start
    ]
    return sample.model_copy(update={"segments": tuple(segments), "turns": tuple(turns)})


def media_of(sample: Sample, start: int, end: int) -> list[int]:
    """Numbers of the media that a part keeps, in order."""
    kept = [*range(_system_end(sample)), *range(start, end)]
    return [medium for number in kept if (medium := sample.segments[number].medium) is not None]


def find_tokenizer(workspace: Path, digest: str) -> TextTokenizer:
    """Open the tokenizer artifact that costs were counted with.

    Raises:
        InputError: there is none; cutting samples needs it.
    """
    for folder in sorted(workspace.glob("tokenizers/*/")):
        tokenizer = TextTokenizer.load(folder)
        if tokenizer.digest == digest:
            return tokenizer
    raise InputError(f"{workspace / 'tokenizers'}: no tokenizer {digest[:12]}, which cutting long samples needs")


def _edges(sample: Sample) -> list[int]:
    """Where it may be cut: between segments of a document, between exchanges of a conversation."""
    if not sample.turns:
        return list(range(len(sample.segments) + 1))
    return [*(turn.start for turn in sample.turns if turn.role == "user"), len(sample.segments)]


def _system_end(sample: Sample) -> int:
    return sample.turns[0].end if sample.turns and sample.turns[0].role == "system" else 0


def _read(workspace: Path, table: CostTable, positions: npt.NDArray[np.intp]) -> list[tuple[int, Sample]]:
    """Read samples of one dataset by their positions in it, which rise."""
    shard_of = table.shard_numbers()
    folder = workspace / "samples" / table.name
    found: list[tuple[int, Sample]] = []
    numbers, firsts = np.unique(shard_of[positions], return_index=True)  # positions rise, so shards do
    for number, here in zip(numbers.tolist(), np.split(positions, firsts[1:]), strict=True):
        shard = table.shards[number]
        places = kept_rows(folder / f"{shard.name}.parquet", ["json_offset", "json_bytes"])
        for position in here.tolist():
            row = places.slice(position - shard.first, 1).to_pylist()[0]
            data = read_member(folder / f"{shard.name}.tar", row["json_offset"], row["json_bytes"])
            found.append((position, Sample.model_validate_json(data)))
    return found
