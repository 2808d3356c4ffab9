"""CIDEr-D of captions (Vedantam et al. 2015), as coco-caption computes it.

TF-IDF vectors of 1- to 4-grams, where a document is all references of one picture; clipped cosine similarity, a
Gaussian penalty for unlike lengths, mean over n and references, times 10. The length it compares is the number of
bigrams (coco-caption counts `n == 1` from zero): kept, as published scores have it. Words are those of its tokenizer,
see `words.py`.

Source: the behaviour of coco-caption. Its package for Python 3 (pycocoevalcap) names no licence, brings 100 MB of other
metrics and runs Java for each call, so it is not depended on; a soak test compares with it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from owl3.eval.metrics.words import words_of

MAX_N = 4
SIGMA = 6.0
NGram = tuple[str, ...]


def ngrams(text: str) -> Counter[NGram]:
    """How often a caption says each run of 1 to 4 words."""
    words = words_of(text)
    spans = (tuple(words[i : i + n]) for n in range(1, MAX_N + 1) for i in range(len(words) - n + 1))
    return Counter(spans)


class _Vector:
    """A caption's TF-IDF weights by n, their norms, and its length in bigrams."""

    def __init__(self, counts: Counter[NGram], document_frequency: Mapping[NGram, int], log_documents: float) -> None:
        self.weights: list[dict[NGram, float]] = [{} for _ in range(MAX_N)]
        for ngram, count in counts.items():
            idf = log_documents - math.log(max(1, document_frequency.get(ngram, 0)))
            self.weights[len(ngram) - 1][ngram] = count * idf
        self.norms = [math.sqrt(sum(w * w for w in part.values())) for part in self.weights]
        self.length = sum(count for ngram, count in counts.items() if len(ngram) == 2)


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    penalty = math.exp(-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))
    total = 0.0
    for n in range(MAX_N):
        theirs = reference.weights[n]
        dot = sum(min(w, theirs.get(g, 0.0)) * theirs.get(g, 0.0) for g, w in candidate.weights[n].items())
        scale = candidate.norms[n] * reference.norms[n]
        total += dot / scale * penalty if scale else 0.0
    return total / MAX_N


def cider(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """The score of each caption; their mean is the corpus's CIDEr (1.0 is what papers print as 100).

    Args:
        candidates: One caption per picture.
        references: Its references, at least one each. Document frequencies come from these alone.
    """
    counted = [[ngrams(text) for text in group] for group in references]
    frequency: dict[NGram, int] = defaultdict(int)
    for group in counted:
        for ngram in set().union(*group):
            frequency[ngram] += 1
    log_documents = math.log(len(references)) if references else 0.0
    scores = []
    for text, group in zip(candidates, counted, strict=True):
        candidate = _Vector(ngrams(text), frequency, log_documents)
        likeness = [_similarity(candidate, _Vector(counts, frequency, log_documents)) for counts in group]
        scores.append(10.0 * sum(likeness) / len(likeness))
    return scores
