"""The words of a caption as coco-caption counts them, so that CIDEr agrees to the last printed digit.

The official code pipes captions through Stanford CoreNLP 3.4.1's PTBTokenizer (Java) and then leaves out some marks:
"A man's dog, isn't it?" is a man 's dog is n't it. Some of it is odd, and kept: "(" stays as the word -lrb-, "!!" as
itself, "Mr." with its full stop, ":)" is :-rrb-, emoji vanish. `word_rules.py` says what one word is.

Known to differ: Chinese is split by character here (the official tokenizer takes a run of it for one word, which makes
CIDEr of Chinese captions nearly exact match); a caption that ends in "B." or "No." does not depend here on how the next
caption begins, as it does there; and rarities: no-break and wide blanks beside web addresses and quotes, a soft hyphen
that begins a word, a capital sigma in words of mixed scripts. 52,587 real captions and questions gave the same words,
and all but 35 of 30,000 heaps of hard pieces.
"""

from __future__ import annotations

import re
from functools import lru_cache

from owl3.eval.metrics.word_rules import PATTERNS, RUN_ONS, shape_of

_LEFT_OUT = frozenset(["''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"])
_HAN = re.compile(r"([\u4e00-\u9fff])")
_PLAIN = re.compile(r"[A-Za-z]+(?=[ \n])")
_RUN_ON = frozenset(map("".join, RUN_ONS))
_NO_WORD = "none"
_UNWRITTEN = ("dash", "dots", _NO_WORD)
_AS_IT_STANDS = ("tag", "url", "site", "mail")
_STRAIGHT = ("ending", "not", "quote")
_SIGNS = {
    **dict(zip("()[]{}", ("-lrb-", "-rrb-", "-lsb-", "-rsb-", "-lcb-", "-rcb-"), strict=True)),
    **dict.fromkeys("¤€₠\u0080", "$"),
    **dict(zip("¢£¼½¾⅓⅔", ("cents", "#", "1/4", "1/2", "3/4", "1/3", "2/3"), strict=True)),
    **dict.fromkeys(("&quot;", "&apos;"), ""),
}
_ENTITIES = {"&lt;": "<", "&gt;": ">", "&nbsp;": ""}
_QUOTES = str.maketrans(
    {
        **dict.fromkeys("‘‹\u0091‛", "`"),
        **dict.fromkeys("’›\u0092", "'"),
        **dict.fromkeys("“«\u0093", "``"),
        **dict.fromkeys('"”»\u0094', "''"),
    }
)


@lru_cache(maxsize=1 << 18)
def words_of(text: str) -> tuple[str, ...]:
    """Lower-case words; a caption's line breaks are blanks. Kept, as each figure reads each caption anew."""
    return tuple(word for token in tokens_of(text) for word in token.split())


@lru_cache(maxsize=1 << 18)
def tokens_of(text: str) -> tuple[str, ...]:
    """The same, with blanks left in a telephone number, a fraction or a tag: ROUGE-L counts such a one as one word."""
    found: list[str] = []
    text = _HAN.sub(r" \1 ", text)
    shape = "".join(map(shape_of, text)) + "\n"  # a caption is a line
    place = 0
    while place < len(text):
        plain = _PLAIN.match(shape, place)
        if plain and plain[0].lower() not in _RUN_ON:
            found.append(plain[0].lower())
            place = plain.end()
        elif shape[place] == " ":
            place += 1
        else:
            name, end = _longest(shape, place)
            found += filter(None, [_written(name, text[place:end])])
            place = end
    return tuple(found)


def _longest(shape: str, place: int) -> tuple[str, int]:
    """The pattern that reaches furthest from here, and where its word ends."""
    best, length, end = _NO_WORD, 0, place + 1
    for name, pattern in PATTERNS.items():
        match = pattern.match(shape, place)
        if match and match.end() > length:
            word = "word" if "word" in pattern.groupindex else 0
            best, length, end = name, match.end(), match.end(word)
    return best, end


def _written(name: str, word: str) -> str:
    """The word as the official tokenizer writes it; empty when the official code leaves it out."""
    if word in _SIGNS:
        return _SIGNS[word]
    word = word.lower()
    if name in _AS_IT_STANDS:
        return word
    word = word.replace("\u00ad", "")
    if name in _STRAIGHT:
        word = word.translate(_QUOTES).replace("&apos;", "'")
    else:
        word = word.replace("(", "-lrb-").replace(")", "-rrb-").replace("&amp;", "&")
    word = _ENTITIES.get(word, word)
    return "" if name in _UNWRITTEN or word in _LEFT_OUT or not word.strip("-֊‐‑") else word
