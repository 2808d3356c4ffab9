"""What captions score: CIDEr, and beside it BLEU-4 and ROUGE-L as coco-caption gives them, of the same words.

BLEU (Papineni et al. 2002) is the corpus's: clipped n-grams of all captions together, against the reference of the
nearest length. ROUGE-L (Lin 2004) weighs recall 1.2 times over precision, and takes the best of each over a picture's
references. METEOR and SPICE are Java programs with word nets of their own, and are not computed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from owl3.eval.items import Record
from owl3.eval.metrics.cider import MAX_N, cider, ngrams
from owl3.eval.metrics.words import tokens_of, words_of

ROUGE_BETA = 1.2


def bleu_4(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """BLEU-4 of a corpus, 0 to 1."""
    shared, said = [0] * MAX_N, [0] * MAX_N
    length = reference_length = 0
    for text, group in zip(candidates, references, strict=True):
        count = len(words_of(text))
        length += count
        reference_length += min((len(words_of(one)) for one in group), key=lambda other: (abs(other - count), other))
        most: Counter[tuple[str, ...]] = Counter()
        for one in group:
            most |= ngrams(one)
        for ngram, times in ngrams(text).items():
            said[len(ngram) - 1] += times
            shared[len(ngram) - 1] += min(times, most[ngram])
    if not all(shared):
        return 0.0
    precision = math.prod(part / whole for part, whole in zip(shared, said, strict=True)) ** (1 / MAX_N)
    return precision * min(1.0, math.exp(1 - reference_length / length))


def rouge_l(text: str, references: Sequence[str]) -> float:
    """ROUGE-L of one caption, 0 to 1."""
    said, *groups = (tokens_of(one) or ("",) for one in (text, *references))
    common = [_longest_common(said, words) for words in groups]
    if not any(common):
        return 0.0
    precision = max(common) / len(said)
    recall = max(count / len(words) for count, words in zip(common, groups, strict=True))
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def _longest_common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    lengths = [0] * (len(second) + 1)
    for word in first:
        before = 0
        for place, other in enumerate(second, start=1):
            here = lengths[place]
            lengths[place] = before + 1 if word == other else max(here, lengths[place - 1])
            before = here
    return lengths[-1]


def word_overlap(text: str, references: Sequence[str]) -> float:
    """F1 of words against the likest reference, 0 to 1: what one line of samples.jsonl can say of itself."""
    said = Counter(words_of(text))
    best = 0.0
    for reference in references:
        wanted = Counter(words_of(reference))
        shared = (said & wanted).total()
        best = max(best, 2 * shared / max(1, said.total() + wanted.total()))
    return best


def aggregate(records: Sequence[Record]) -> dict[str, float]:
    """CIDEr, BLEU-4, ROUGE-L and word overlap of the corpus."""
    kept = [record for record in records if record.score is not None]
    if not kept:
        return {}
    said, references = [record.answer or "" for record in kept], [record.gold for record in kept]
    rouge = [rouge_l(text, group) for text, group in zip(said, references, strict=True)]
    return {
        "cider": _mean([record.score or 0.0 for record in weighed(kept)]),
        "bleu_4": bleu_4(said, references),
        "rouge_l": _mean(rouge),
        "word_overlap": _mean([record.score or 0.0 for record in kept]),
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def weighed(records: Sequence[Record]) -> list[Record]:
    """The captions with their own CIDEr for a score, words weighed by all references: what CIDEr is the mean of."""
    kept = [record for record in records if record.score is not None]
    scores = cider([record.answer or "" for record in kept], [record.gold for record in kept])
    return [replace(record, score=score) for record, score in zip(kept, scores, strict=True)]
