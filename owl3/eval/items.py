"""What a benchmark is made of: questions about media, and what became of each answer.

A task reads a benchmark's published files into `Item`s. A generator answers them. The answers become `Record`s, one
JSON line each, and every figure in a summary is computed from records alone. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

How = Literal["strict", "lenient", "failed"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True, slots=True)
class Medium:
    """One picture or one video of a question.

    Attributes:
        path: The file; None when the benchmark carries the bytes itself (MMBench's tsv).
        data: The bytes of a picture, when there is no file.
        num_frames: 0 for a picture; for a video, how many frames stand in its place.
        start_s: First second of the part of the video that is asked about.
        end_s: Last second of it; None means the end of the file.
        frames_per_s: The video is a folder of pictures, so many of them a second; 0 for a file.
    """

    path: Path | None = None
    data: bytes | None = field(default=None, repr=False)
    num_frames: int = 0
    start_s: float = 0.0
    end_s: float | None = None
    frames_per_s: float = 0.0

    def name(self) -> str:
        """The file's name, for error lines."""
        return self.path.name if self.path is not None else "inline"


@dataclass(frozen=True, slots=True)
class Item:
    """One question.

    Attributes:
        id: Unique inside the task.
        prompt: The user's turn in reading order: text and media.
        answers: Gold answers; empty when a test server holds them.
        options: The closed set an answer comes from, in the order shown; empty when the answer is free.
        group: Questions of one group share their media: they are drawn together when a confidence interval is made.
        category: What the benchmark breaks its score down by.
        meta: Whatever the task's own score needs beside that; small.
    """

    id: str
    prompt: tuple[str | Medium, ...]
    answers: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    group: str = ""
    category: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict)

    def media(self) -> tuple[Medium, ...]:
        """What there is to look at, in reading order."""
        return tuple(part for part in self.prompt if isinstance(part, Medium))

    def question(self) -> str:
        """What passes of circular evaluation have in common; else the item's own id."""
        return str(self.meta.get("question", self.id))

    def text(self) -> str:
        """The prompt as a person reads it; each picture is `<image>` and each video `<video>`."""
        return "".join(
            part if isinstance(part, str) else ("<video>" if part.num_frames else "<image>") for part in self.prompt
        )

    def with_frames(self, num_frames: int) -> Item:
        """The same question with so many frames of each video."""
        parts = (
            replace(p, num_frames=num_frames) if isinstance(p, Medium) and p.num_frames else p for p in self.prompt
        )
        return replace(self, prompt=tuple(parts))

    def blind(self) -> Item:
        """The same question without anything to look at."""
        return replace(self, prompt=tuple(part for part in self.prompt if isinstance(part, str)))


@dataclass(frozen=True, slots=True)
class Parsed:
    """An answer taken out of a model's words, and how much good will that needed."""

    answer: str | None
    how: How


@dataclass(frozen=True, slots=True)
class Record:
    """One line of samples.jsonl.

    `score` is None when the question could not be put (`error` says why) or when a test server holds the answer: such
    a line counts in no average.
    """

    id: str
    group: str
    category: str
    prompt: str
    raw: str
    answer: str | None
    how: How
    gold: tuple[str, ...]
    score: float | None
    error: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self) | {"meta": dict(self.meta)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Record:
        """The record that `as_json` wrote."""
        return cls(**{**row, "gold": tuple(row["gold"])})
