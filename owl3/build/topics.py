"""Which parents belong together: by what captions speak of, or by an embedding.

A topic is a number per parent. The order of drawing then walks topic by topic (both the topics and the parents inside
them shuffled), so that parents that are drawn one after another, and so end up in one sample, share a topic.
"""

import re
import zlib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from owl3.build.draw import Int64s, key_of, mix
from owl3.build.pool import Pool
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
    topics = caption_topics(pool, min_group) if embeddings is None else embedding_topics(pool, embeddings)
    np.save(path, topics)


def caption_topics(pool: Pool, min_group: int) -> NDArray[np.uint64]:
    """The rarest word of each caption that at least `min_group` captions share; 0 for captions without one.

    Words are counted in hashed buckets, so memory does not grow with the vocabulary.
    """
    counts = np.zeros(_BUCKETS, dtype=np.int64)
    for captions in pool.rows.column("caption"):
        for caption in captions.to_pylist():
            np.add.at(counts, sorted(_words(caption)), 1)
    topics = np.zeros(len(pool), dtype=np.uint64)
    row = 0
    for captions in pool.rows.column("caption"):
        for caption in captions.to_pylist():
            shared = [(counts[word], word) for word in _words(caption) if counts[word] >= min_group]
            topics[row] = min(shared)[1] if shared else 0
            row += 1
    return topics


def _words(caption: str) -> set[int]:
    return {zlib.crc32(word.encode()) % _BUCKETS for word in _WORD.findall(caption.lower()) if word not in _COMMON}


def embedding_topics(pool: Pool, path: Path) -> NDArray[np.uint64]:
    """Parents whose embeddings lie on the same sides of random planes share a topic (locality-sensitive hashing).

    Args:
        path: Parquet with `sample_id` and `embedding` (list of numbers).

    Raises:
        InputError: when a parent has no embedding.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such embedding file")
    table = pq.read_table(path, columns=["sample_id", "embedding"])
    place = {sample_id: index for index, sample_id in enumerate(table["sample_id"].to_pylist())}
    ids = [sample_id for column in pool.rows.column("sample_id") for sample_id in column.to_pylist()]
    missing = next((sample_id for sample_id in ids if sample_id not in place), None)
    if missing is not None:
        raise InputError(f"{path}: has no embedding for {missing}; embed the whole shard set first")
    vectors = np.array(table["embedding"].to_pylist(), dtype=np.float32)[[place[sample_id] for sample_id in ids]]
    vectors -= vectors.mean(axis=0)
    num_planes = min(_PLANES, max(1, len(ids).bit_length() - 4))
    planes = np.random.default_rng(0).standard_normal((vectors.shape[1], num_planes)).astype(np.float32)
    sides = (vectors @ planes > 0).astype(np.uint64)
    return np.asarray(sides @ (np.uint64(1) << np.arange(num_planes, dtype=np.uint64)), dtype=np.uint64)
