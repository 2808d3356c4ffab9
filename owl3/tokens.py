"""Text to ids: Qwen2's tokenizer, read from its files without torch or transformers, and tiny ones like it.

Byte-level BPE: any text has ids, and decoding gives it back (after NFC). Three special tokens end the vocabulary:

    <|endoftext|>   a document or an answer is over; also padding
    <|im_start|>    a turn begins
    <|im_end|>      a turn is over

`<|image|>`, the placeholder, is *not* one of them: it is five ordinary tokens, as in every release of mPLUG-Owl3.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from functools import cached_property, lru_cache
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from owl3.errors import InputError

END_OF_TEXT = "<|endoftext|>"
TURN_START = "<|im_start|>"
TURN_END = "<|im_end|>"
SPECIAL_TOKENS = (END_OF_TEXT, TURN_START, TURN_END)
PLACEHOLDER = "<|image|>"
PLACEHOLDER_TOKENS = 5

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 cuts text into words before merging bytes inside each."""

_SPECIALS = re.compile("|".join(map(re.escape, SPECIAL_TOKENS)))

TEMPLATE_WORDS = ("image", "system", "user", "assistant", "start", "end", "_cut", "_video", "_frame")
"""Words of the templates: one token each in Qwen2's vocabulary, so a tiny one must have them too."""


class TextTokenizer:
    """A `tokenizers.Tokenizer` with Qwen2's special tokens.

    Raises:
        InputError: when a special token is missing, or the placeholder is not five ordinary tokens.
    """

    def __init__(self, tokenizer: Tokenizer, where: str = "tokenizer") -> None:
        self.backend = tokenizer
        self._encode = lru_cache(maxsize=4096)(self._encode_uncached)
        self._count = lru_cache(maxsize=4096)(self._count_uncached)
        missing = [token for token in SPECIAL_TOKENS if tokenizer.token_to_id(token) is None]
        if missing:
            raise InputError(f"{where}: has no token {missing[0]}; give a Qwen2 tokenizer")
        if len(self.placeholder_ids) != PLACEHOLDER_TOKENS:
            raise InputError(
                f"{where}: {PLACEHOLDER} must be {PLACEHOLDER_TOKENS} ordinary tokens, it is "
                f"{list(self.placeholder_ids)}; give the plain Qwen2 tokenizer, without it as an added token"
            )

    def __reduce__(self) -> tuple[type["TextTokenizer"], tuple[Tokenizer]]:
        """Sent to another process without what it remembers."""
        return type(self), (self.backend,)

    @classmethod
    def load(cls, path: Path) -> "TextTokenizer":
        """Read a `tokenizer.json`, or a folder that holds one, or one that holds `vocab.json` and `merges.txt`."""
        file = path / "tokenizer.json" if path.is_dir() else path
        if file.is_file():
            try:
                return cls(Tokenizer.from_file(str(file)), where=str(file))
            except InputError:
                raise
            except Exception as error:  # tokenizers raises bare Exception for any damaged file
                raise InputError(f"{file}: not a tokenizer file: {error}") from error
        vocab, merges = path / "vocab.json", path / "merges.txt"
        if not (vocab.is_file() and merges.is_file()):
            raise InputError(f"{path}: holds neither tokenizer.json nor vocab.json and merges.txt")
        tokenizer = _byte_level(models.BPE.from_file(str(vocab), str(merges)))
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
        return cls(tokenizer, where=str(path))

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; the special tokens in it are recognised."""
        return list(self._encode(text))

    def count(self, text: str) -> int:
        """How many ids `encode` gives. Text is encoded apart from the special tokens in it, which no merge crosses, so
        an answer is encoded once however many templates end it."""
        return self._count(text)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of `ids`. Nothing but special tokens is left out: not "!", whose id is 0."""
        text: str = self.backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text

    def _encode_uncached(self, text: str) -> tuple[int, ...]:
        return tuple(self.backend.encode(text, add_special_tokens=False).ids)

    def _count_uncached(self, text: str) -> int:
        found = _SPECIALS.findall(text)
        if not found:
            return len(self._encode(text))
        return len(found) + sum(self._count(piece) for piece in _SPECIALS.split(text) if piece)

    @property
    def vocab_size(self) -> int:
        """How many ids there are, special tokens included. An embedding may have more rows."""
        return int(self.backend.get_vocab_size())

    @cached_property
    def placeholder_ids(self) -> tuple[int, ...]:
        """The ids of `<|image|>`; (27, 91, 1805, 91, 29) in Qwen2's vocabulary."""
        return self._encode_uncached(PLACEHOLDER)

    @cached_property
    def end_of_text_id(self) -> int:
        """`<|endoftext|>`: ends a document; pads a batch."""
        return self._special_id(END_OF_TEXT)

    @cached_property
    def turn_end_id(self) -> int:
        """`<|im_end|>`: ends an answer."""
        return self._special_id(TURN_END)

    def _special_id(self, token: str) -> int:
        index = self.backend.token_to_id(token)
        assert index is not None, token  # checked when the tokenizer was read
        return index

    @cached_property
    def digest(self) -> str:
        """sha256 of the tokenizer's own description: equal for equal vocabularies, wherever they were read from."""
        return hashlib.sha256(self.backend.to_str().encode()).hexdigest()


def control_token_in(text: str) -> str | None:
    """The first special token or placeholder that stands in `text`, or None. Content that holds one is not content."""
    return next((token for token in (*SPECIAL_TOKENS, PLACEHOLDER) if token in text), None)


def train_tiny(texts: Iterable[str], vocab_size: int) -> TextTokenizer:
    """Learn a small vocabulary with Qwen2's pre-tokenisation: for models that are trained from scratch in minutes.

    Deterministic. The result has at most `vocab_size` ids (fewer when the texts hold fewer words).

    Raises:
        ValueError: when `vocab_size` can't hold the 256 bytes, the templates' words and the special tokens.
    """
    if vocab_size < 320:
        raise ValueError(f"vocab_size {vocab_size} is below 320: 256 bytes, the templates' words, the special tokens")
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS) - sum(len(word) - 1 for word in TEMPLATE_WORDS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[],
        show_progress=False,
    )
    # Without "|" no merge can join "<|" or "|>", which would shorten the placeholder.
    tokenizer.train_from_iterator((text.replace("|", " ") for text in texts), trainer)
    for word in TEMPLATE_WORDS:
        tokenizer = _with_word(tokenizer, word)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return TextTokenizer(tokenizer, where="trained tokenizer")


def save_tokenizer(tokenizer: TextTokenizer, folder: Path) -> list[Path]:
    """Write the files that `TextTokenizer.load` and transformers' `AutoTokenizer` read; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "add_prefix_space": False,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": [TURN_START, TURN_END],
        "model_max_length": 32768,
        "tokenizer_class": "Qwen2Tokenizer",
    }
    contents = {
        "tokenizer.json": tokenizer.backend.to_str(pretty=True),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
    for name, text in contents.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
    return [folder / name for name in contents]


def _byte_level(model: models.BPE) -> Tokenizer:
    """Qwen2's pipeline around a BPE model, as yet without special tokens."""
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN2_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _with_word(tokenizer: Tokenizer, word: str) -> Tokenizer:
    """The same tokenizer, in which `word` is one token: merges are added at the end, where they outrank no other."""
    model = json.loads(tokenizer.to_str())["model"]
    vocab: dict[str, int] = model["vocab"]
    merges = [tuple(merge) for merge in model["merges"]]
    first, *rest = tokenizer.encode(word, add_special_tokens=False).tokens
    for token in rest:
        merges.append((first, token))
        first += token
        vocab.setdefault(first, len(vocab))
    return _byte_level(models.BPE(vocab=vocab, merges=merges))
