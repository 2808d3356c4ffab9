"""Keep evaluation sets out of the training data: pictures by exact and perceptual hash, texts by n-grams.

What is found is dropped, or kept and flagged. Of flagged rows `shards/NAME/overlap-BENCHMARK.txt` lists what they show
or quote, one name per line: a picture's file name, or a question's id. Evaluation scores those apart.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pyarrow as pa
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
    on_image: Literal["drop", "flag"] = "drop"
    """`flag` keeps the row, names the benchmark in its `benchmark` column, and lists the picture."""
    texts: tuple[str, ...] = ()
    """Glob patterns of its tables (json, jsonl, csv, tsv, parquet)."""
    text_columns: tuple[str, ...] = ("question", "caption", "text")
    ngram: int = Field(default=13, ge=3)
    """Words in a row that give a caption away (13 as for GPT-3); shorter texts must be the whole caption."""
    on_text: Literal["drop", "flag"] = "drop"
    """`flag` keeps the row, names the benchmark in its `benchmark` column, and lists the question."""
    id_columns: tuple[str, ...] = ("question_id", "id", "qid")
    """What a question of `texts` is called: the first of these columns that it has, else its number in the file."""

    @model_validator(mode="after")
    def _has_something(self) -> "Benchmark":
        if not self.images and not self.texts:
            raise ValueError(f"benchmark {self.name!r}: give images, texts or both")
        return self


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """A benchmark as hashes, each with the names of what it is the hash of."""

    config: Benchmark
    sha256: Mapping[str, frozenset[str]]
    phash: U64  # sorted; equal ones for pictures that look alike
    names: Sequence[str]  # of the pictures, one per perceptual hash
    ngrams: Mapping[int, frozenset[str]]
    texts: Mapping[int, frozenset[str]]

    @property
    def flags(self) -> bool:
        """Are some hits kept, so that evaluation must know of them?"""
        return "flag" in (self.config.on_image, self.config.on_text)

    def describe(self) -> dict[str, object]:
        """What the manifest says about it."""
        return {"images": len(self.sha256), "texts": len(self.texts), "ngrams": len(self.ngrams)}

    def quoted(self, caption: str) -> frozenset[str]:
        """Questions of which a caption holds n words in a row, or which it is as a whole."""
        words = normalised(caption)
        found = self.texts.get(hash_words(words), frozenset())
        return found.union(*(self.ngrams.get(gram, ()) for gram in _ngrams(words, self.config.ngram)))

    def shown(self, media_sha256: str | None, phash: str | None) -> frozenset[str]:
        """Pictures that are the same bytes, or look the same."""
        found = self.sha256.get(media_sha256 or "", frozenset())
        if phash is None or not len(self.phash):
            return found
        near = np.bitwise_count(self.phash ^ np.uint64(int(phash, 16))) <= self.config.radius
        return found | {self.names[int(place)] for place in np.flatnonzero(near)}


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
    pictures: list[tuple[int, str]] = []
    exact, grams, texts = (
        defaultdict[str, set[str]](set),
        defaultdict[int, set[str]](set),
        defaultdict[int, set[str]](set),
    )
    for path in _files(benchmark, benchmark.images, workspace, _SUFFIXES):
        data = path.read_bytes()
        exact[sha256(data).hexdigest()].add(path.name)
        try:
            pictures.append((int(probe_image(data).phash, 16), path.name))
        except MediaError as error:
            raise InputError(f"benchmark {benchmark.name}: {path}: {error.reason}: {error}") from error
    for name, text in _texts(benchmark, workspace):
        words = normalised(text)
        texts[hash_words(words)].add(name)
        for gram in _ngrams(words, benchmark.ngram):
            grams[gram].add(name)
    pictures.sort()
    return Fingerprints(
        benchmark,
        _frozen(exact),
        np.array([value for value, _ in pictures], np.uint64),
        [name for _, name in pictures],
        _frozen(grams),
        _frozen(texts),
    )


Key = TypeVar("Key")


def _frozen(found: Mapping[Key, set[str]]) -> dict[Key, frozenset[str]]:
    return {key: frozenset(names) for key, names in found.items()}


def _texts(benchmark: Benchmark, workspace: Path) -> Iterator[tuple[str, str]]:
    """Name and text of each question."""
    for path in _files(benchmark, benchmark.texts, workspace):
        found = False
        for number, row in enumerate(read_table(path)):
            name = next(
                (str(row[column]) for column in benchmark.id_columns if row.get(column) is not None), str(number)
            )
            for column in benchmark.text_columns:
                if isinstance(row.get(column), str) and row[column].strip():
                    found = True
                    yield name, row[column]
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
) -> dict[int, tuple[str, Any]]:
    """Which rows show a picture of a benchmark: row number to (benchmark, "drop" or "flag"); a drop goes first."""
    hits: dict[int, tuple[str, Any]] = {}
    for prints in _drops_first(against, lambda config: config.on_image):
        near = find_near(phash, np.unique(prints.phash), prints.config.radius)
        for hit in np.flatnonzero((near >= 0) & has_phash):
            hits.setdefault(int(hit), (prints.config.name, prints.config.on_image))
        for row, digest in enumerate(media_sha256):
            if digest in prints.sha256:
                hits.setdefault(row, (prints.config.name, prints.config.on_image))
    return hits


def find_quoted(captions: Sequence[str], against: Sequence[Fingerprints]) -> dict[int, tuple[str, Any]]:
    """Which captions quote a benchmark: row number to (benchmark, "drop" or "flag"); a drop goes first."""
    hits: dict[int, tuple[str, Any]] = {}
    for prints in _drops_first(against, lambda config: config.on_text):
        if prints.ngrams or prints.texts:
            for row, caption in enumerate(captions):
                if row not in hits and prints.quoted(caption):
                    hits[row] = (prints.config.name, prints.config.on_text)
    return hits


def _drops_first(against: Sequence[Fingerprints], action: Callable[[Benchmark], str]) -> list[Fingerprints]:
    return sorted(against, key=lambda prints: action(prints.config) != "drop")


def overlap_lists(flagged: pa.Table, against: Sequence[Fingerprints]) -> dict[str, list[str]]:
    """What kept rows show or quote of each benchmark that flags: benchmark to sorted names.

    Args:
        flagged: The ratings (overview.py) of the rows that are kept although some benchmark knows them.
    """
    columns = ("media_sha256", "phash", "caption")
    rows = list(zip(*(flagged.column(name).to_pylist() for name in columns), strict=True))
    return {
        prints.config.name: sorted(
            {n for sha, phash, text in rows for n in prints.shown(sha, phash) | prints.quoted(text)}
        )
        for prints in against
        if prints.flags
    }
