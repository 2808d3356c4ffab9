"""Which parents belong together: by what captions speak of, or by an embedding.

A topic is a number per parent. The order of drawing then walks topic by topic (both the topics and the parents inside
them shuffled), so that parents that are drawn one after another, and so end up in one sample, share a topic.
"""

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from owl3.build.draw import Int64s, key_of, mix
from owl3.build.pool import Pool
from owl3.build.rows import RowTable
from owl3.errors import InputError

_BUCKETS = 1 << 20
_WORD = re.compile(r"[a-z]{3,}|[\u3400-\u9fff]{2}")
_PLANES = 16
_COMMON_WORDS = """
    the and with for from that this are was has have its his her their into over near next two one some while who can
    you your all but not out off man woman people person photo image picture showing shows standing sitting
"""
_COMMON = frozenset(_COMMON_WORDS.split())


class TopicOrder:
    """Parents topic by topic; another shuffle each pass. Holds one pass (8 bytes per parent) in memory."""

    def __init__(self, path: Path, *key: str | int) -> None:
        self._topics: NDArray[np.uint64] = np.load(path, mmap_mode="r")
        self._key = key
        self._pass: tuple[int, Int64s] | None = None
        self.size = len(self._topics)

    def at(self, pass_index: int, places: Int64s) -> Int64s:
        """See `draw.Order`."""
        if self._pass is None or self._pass[0] != pass_index:
            key = np.uint64(key_of(*self._key, "pass", pass_index))
            parents = np.arange(self.size, dtype=np.uint64)
            order = np.lexsort((mix(parents ^ key), mix(np.asarray(self._topics) ^ key)))
            self._pass = (pass_index, order.astype(np.int64))
        found: Int64s = self._pass[1][places]
        return found


def write_topic_order(path: Path, pool: Pool, embeddings: Path | None, min_group: int) -> None:
    """Give every parent of `pool` a topic, and store the numbers."""
    (topics,) = topics_of(pool.rows, [pool.rows], embeddings, min_group)
    np.save(path, topics)


def topics_of(
    pool: RowTable, tables: Sequence[RowTable], embeddings: Path | None, min_group: int
) -> list[NDArray[np.uint64]]:
    """The topic of every row of some tables, in numbers that compare: by the pool's words, or by an embedding file."""
    if embeddings is None:
        return caption_topics(pool, tables, min_group)
    return embedding_topics(pool, tables, embeddings)


def caption_topics(pool: RowTable, tables: Sequence[RowTable], min_group: int) -> list[NDArray[np.uint64]]:
    """The rarest word of each caption that at least `min_group` of the pool's share; 0 for captions without one.

    Words are counted in hashed buckets, so memory does not grow with the vocabulary.
    """
    counts = np.zeros(_BUCKETS, dtype=np.int64)
    for caption in _texts(pool, "caption"):
        np.add.at(counts, sorted(_words(caption)), 1)

    def topic(caption: str) -> int:
        shared = [(counts[word], word) for word in _words(caption) if counts[word] >= min_group]
        return min(shared)[1] if shared else 0

    return [np.fromiter(map(topic, _texts(table, "caption")), np.uint64, len(table)) for table in tables]


def _texts(table: RowTable, column: str) -> Iterator[str]:
    for chunk in table.column(column):
        for text in chunk.to_pylist():
            yield text or ""


def _words(caption: str) -> set[int]:
    return {zlib.crc32(word.encode()) % _BUCKETS for word in _WORD.findall(caption.lower()) if word not in _COMMON}


def embedding_topics(pool: RowTable, tables: Sequence[RowTable], path: Path) -> list[NDArray[np.uint64]]:
    """Rows whose embeddings lie on the same sides of random planes share a topic (locality-sensitive hashing).

    Args:
        path: Parquet with `sample_id` and `embedding` (list of numbers).

    Raises:
        InputError: when a parent has no embedding.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such embedding file")
    table = pq.read_table(path, columns=["sample_id", "embedding"])
    place = {sample_id: index for index, sample_id in enumerate(table["sample_id"].to_pylist())}
    ids = [list(_texts(rows, "sample_id")) for rows in (pool, *tables)]
    missing = next((sample_id for part in ids for sample_id in part if sample_id not in place), None)
    if missing is not None:
        raise InputError(f"{path}: has no embedding for {missing}; embed the whole shard set first")
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)
    centre = vectors[[place[sample_id] for sample_id in ids[0]]].mean(axis=0)
    num_planes = min(_PLANES, max(1, len(pool).bit_length() - 4))
    planes = np.random.default_rng(0).standard_normal((vectors.shape[1], num_planes)).astype(np.float32)
    bits = np.uint64(1) << np.arange(num_planes, dtype=np.uint64)
    sides = [(vectors[[place[sample_id] for sample_id in part]] - centre) @ planes > 0 for part in ids[1:]]
    return [np.asarray(side.astype(np.uint64) @ bits, dtype=np.uint64) for side in sides]
