"""Hard negatives: pictures of the same topic as the one that is asked about, none used more often than allowed.

The questions of a topic stand in a row, and so do its pictures. Question number q of a topic takes the pictures from
place q x window on, round and round: so every picture of the topic serves equally often, and how often is known before
anything is built.

Shape letters in this file: P pictures, Q questions, T topics.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from owl3.build.draw import Int64s, key_of, mix
from owl3.build.rows import RowTable
from owl3.build.topics import topics_of


class Neighbours:
    """Pictures that stand near a question."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as stored:
            self._pictures_P: Int64s = stored["pictures"]
            self._first_Q: Int64s = stored["first"]
            self._size_Q: Int64s = stored["size"]
            self._rank_Q: Int64s = stored["rank"]
            self._questions_Q: Int64s = stored["questions"]

    def of(self, question: int, round_: int, count: int) -> Sequence[int]:
        """Rows of at most `count` different pictures of a question's topic; other ones in the next round."""
        size = int(self._size_Q[question])
        count = min(count, size)
        turn = int(self._rank_Q[question]) + round_ * int(self._questions_Q[question])
        places = int(self._first_Q[question]) + (turn * count + np.arange(count)) % max(size, 1)
        found: list[int] = self._pictures_P[places].tolist()
        return found

    def window(self, question: int, rounds: int, most: int, max_uses: int) -> int:
        """How many pictures each question of a topic may take, so that none of them serves more than `max_uses` times.

        Args:
            most: As many are enough.
        """
        turns = int(self._questions_Q[question]) * rounds
        return min(most, max_uses * int(self._size_Q[question]) // max(turns, 1))


def write_neighbours(
    path: Path, pictures: RowTable, questions: RowTable, embeddings: Path | None, min_group: int, *key: str | int
) -> None:
    """Work out the topics of pictures and questions, and where each question's topic lies among the pictures."""
    picture_topic_P, question_topic_Q = topics_of(pictures, [pictures, questions], embeddings, min_group)
    salt = np.uint64(key_of(*key, "neighbours"))
    order_P = np.lexsort((mix(np.arange(len(pictures), dtype=np.uint64) ^ salt), picture_topic_P))
    sorted_P = picture_topic_P[order_P]
    first_Q = np.searchsorted(sorted_P, question_topic_Q, "left")
    size_Q = np.searchsorted(sorted_P, question_topic_Q, "right") - first_Q
    if embeddings is None:
        size_Q[question_topic_Q == 0] = 0  # captions that share no word are no topic
    rank_Q, questions_Q = _ranks(question_topic_Q)
    with path.open("wb") as handle:
        np.savez(handle, pictures=order_P, first=first_Q, size=size_Q, rank=rank_Q, questions=questions_Q)


def _ranks(topic_Q: NDArray[np.uint64]) -> tuple[Int64s, Int64s]:
    """The number of each question within its topic, and how many the topic has."""
    order_Q = np.argsort(topic_Q, kind="stable")
    _, starts_T, counts_T = np.unique(topic_Q[order_Q], return_index=True, return_counts=True)
    rank_Q = np.empty(len(topic_Q), dtype=np.int64)
    rank_Q[order_Q] = np.arange(len(topic_Q)) - np.repeat(starts_T, counts_T)
    questions_Q = np.empty(len(topic_Q), dtype=np.int64)
    questions_Q[order_Q] = np.repeat(counts_T, counts_T)
    return rank_Q, questions_Q
