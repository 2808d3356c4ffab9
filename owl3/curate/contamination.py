"""Keep evaluation sets out of the training data: pictures by exact and perceptual hash, texts by n-grams."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from owl3.config import Config
from owl3.curate.dedup import U64, find_near
from owl3.curate.sources.tables import read_table
from owl3.errors import InputError
from owl3.media import MediaError, probe_image
from owl3.storage import sha256_of

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp")
_WORD = re.compile(r"[^\W_]+")


class Benchmark(Config):
    """An evaluation set that must not be trained on."""

    name: str
    images: tuple[str, ...] = ()
    """Glob patterns of its pictures, absolute or relative to the workspace."""
    radius: int = Field(default=4, ge=0, le=16)
    """Hamming distance of perceptual hashes up to which a picture counts as the same; exact bytes always do."""
    texts: tuple[str, ...] = ()
    """Glob patterns of its tables (json, jsonl, csv, tsv, parquet)."""
    text_columns: tuple[str, ...] = ("question", "caption", "text")
    ngram: int = Field(default=13, ge=3)
    """Words in a row that give a caption away (13 as for GPT-3); shorter texts must be the whole caption."""
    on_text: Literal["drop", "flag"] = "drop"
    """`flag` keeps the row and names the benchmark in its `benchmark` column."""

    @model_validator(mode="after")
    def _has_something(self) -> "Benchmark":
        if not self.images and not self.texts:
            raise ValueError(f"benchmark {self.name!r}: give images, texts or both")
        return self


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """A benchmark as hashes."""

    config: Benchmark
    sha256: frozenset[str]
    phash: U64
    ngrams: frozenset[int]
    texts: frozenset[int]

    def describe(self) -> dict[str, object]:
        """What the manifest says about it."""
        return {"images": len(self.sha256), "texts": len(self.texts), "ngrams": len(self.ngrams)}

    def has_text(self, caption: str) -> bool:
        """Does a caption hold n words in a row of one of the texts, or is it one of them?"""
        words = normalised(caption)
        if hash_words(words) in self.texts:
            return True
        return any(gram in self.ngrams for gram in _ngrams(words, self.config.ngram))


def normalised(text: str) -> list[str]:
    """Words of a text without case and punctuation; each Chinese or Japanese character counts as a word."""
    words: list[str] = []
    for word in _WORD.findall(text.casefold()):
        words += list(word) if any("\u3040" <= character <= "\u9fff" for character in word) else [word]
    return words


def hash_words(words: Sequence[str]) -> int:
    """A 64-bit hash of words that is the same in every process."""
    return int.from_bytes(sha256(" ".join(words).encode()).digest()[:8], "big")


def _ngrams(words: Sequence[str], size: int) -> Iterator[int]:
    return (hash_words(words[start : start + size]) for start in range(len(words) - size + 1))


def benchmark_files(benchmark: Benchmark, workspace: Path) -> list[dict[str, str]]:
    """Name and hash of every file of a benchmark: part of what a corpus was made from."""
    paths = [*_files(benchmark, benchmark.images, workspace, _SUFFIXES), *_files(benchmark, benchmark.texts, workspace)]
    return [{"name": path.name, "sha256": sha256_of(path)} for path in paths]


def fingerprint(benchmark: Benchmark, workspace: Path) -> Fingerprints:
    """Hash a benchmark.

    Raises:
        InputError: when a pattern matches nothing, a picture is none, or no table has one of `text_columns`.
    """
    hashes, exact = [], set()
    for path in _files(benchmark, benchmark.images, workspace, _SUFFIXES):
        data = path.read_bytes()
        exact.add(sha256(data).hexdigest())
        try:
            hashes.append(int(probe_image(data).phash, 16))
        except MediaError as error:
            raise InputError(f"benchmark {benchmark.name}: {path}: {error.reason}: {error}") from error
    grams: set[int] = set()
    texts: set[int] = set()
    for text in _texts(benchmark, workspace):
        words = normalised(text)
        texts.add(hash_words(words))
        grams.update(_ngrams(words, benchmark.ngram))
    phash = np.array(sorted(set(hashes)), np.uint64)
    return Fingerprints(benchmark, frozenset(exact), phash, frozenset(grams), frozenset(texts))


def _texts(benchmark: Benchmark, workspace: Path) -> Iterator[str]:
    for path in _files(benchmark, benchmark.texts, workspace):
        found = False
        for row in read_table(path):
            for column in benchmark.text_columns:
                if isinstance(row.get(column), str) and row[column].strip():
                    found = True
                    yield row[column]
        if not found:
            raise InputError(f"benchmark {benchmark.name}: {path} has no text in {', '.join(benchmark.text_columns)}")


def _files(
    benchmark: Benchmark, patterns: Iterable[str], workspace: Path, suffixes: Sequence[str] | None = None
) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        root, relative = (Path(pattern).anchor, pattern[1:]) if Path(pattern).is_absolute() else (workspace, pattern)
        matches = sorted(path for path in Path(root).glob(relative) if path.is_file())
        matches = [path for path in matches if suffixes is None or path.suffix.lower() in suffixes]
        if not matches:
            raise InputError(f"benchmark {benchmark.name}: nothing matches {pattern!r}")
        found += matches
    return found


def find_contaminated(
    media_sha256: Sequence[str | None], phash: U64, has_phash: NDArray[np.bool_], against: Sequence[Fingerprints]
) -> dict[int, str]:
    """Which rows show a picture of a benchmark: row number to the first benchmark's name."""
    hits: dict[int, str] = {}
    for prints in against:
        near = find_near(phash, prints.phash, prints.config.radius)
        for hit in np.flatnonzero((near >= 0) & has_phash):
            hits.setdefault(int(hit), prints.config.name)
        for row, digest in enumerate(media_sha256):
            if digest in prints.sha256:
                hits.setdefault(row, prints.config.name)
    return hits


def find_quoted(captions: Sequence[str], against: Sequence[Fingerprints]) -> dict[int, tuple[str, Any]]:
    """Which captions quote a benchmark: row number to (benchmark, "drop" or "flag")."""
    hits: dict[int, tuple[str, Any]] = {}
    for prints in against:
        if prints.ngrams or prints.texts:
            for row, caption in enumerate(captions):
                if row not in hits and prints.has_text(caption):
                    hits[row] = (prints.config.name, prints.config.on_text)
    return hits
