"""Text to ids and back, in Qwen2's way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models
from transformers import AutoTokenizer

from owl3.errors import InputError
from owl3.tokens import (
    SPECIAL_TOKENS,
    TEMPLATE_WORDS,
    TextTokenizer,
    control_token_in,
    save_tokenizer,
    train_tiny,
)

TEXTS = [f"a {colour} {shape} | left of <|image|>" for colour in ("red", "blue") for shape in ("square", "star")]
TINY = train_tiny(TEXTS, 400)


@pytest.mark.shared
def test_qwen2_ids_are_those_of_tiktoken(shared_data: Callable[[str], Path]) -> None:
    tokenizer = TextTokenizer.load(shared_data("data/tokenizer_qwen2"))
    lines = shared_data("data/tokenizer_qwen2/reference_encodings_tiktoken.jsonl").read_text().splitlines()
    for line in map(json.loads, lines):
        assert tokenizer.encode(line["text"]) == line["ids"]
    assert tokenizer.placeholder_ids == (27, 91, 1805, 91, 29)
    assert (tokenizer.vocab_size, tokenizer.end_of_text_id, tokenizer.turn_end_id) == (151646, 151643, 151645)


@given(text=st.text(max_size=80))
def test_any_text_survives_a_round_trip(text: str) -> None:
    import unicodedata

    assert TINY.decode(TINY.encode(text), skip_special_tokens=False) == unicodedata.normalize("NFC", text)


@given(pieces=st.lists(st.sampled_from([*SPECIAL_TOKENS, "<|", "|>", " ", "\n", "a red", "<|image|>", "é", "7"])))
def test_counting_is_encoding_without_the_ids(pieces: list[str]) -> None:
    text = "".join(pieces)
    assert TINY.count(text) == len(TINY.encode(text))


def test_an_exclamation_mark_is_text() -> None:
    """Its id is 0, which the released code deletes from answers."""
    assert TINY.encode("!") == [0]
    assert TINY.decode([*TINY.encode("Hello!!"), TINY.turn_end_id]) == "Hello!!"


def test_a_tiny_vocabulary_has_the_templates_words_and_a_placeholder_of_five_ordinary_tokens() -> None:
    for word in TEMPLATE_WORDS:
        assert len(TINY.encode(word)) == 1, word
    assert len(TINY.placeholder_ids) == 5
    assert TINY.decode(TINY.placeholder_ids) == "<|image|>"
    assert [TINY.encode(token) for token in SPECIAL_TOKENS] == [[TINY.vocab_size - n] for n in (3, 2, 1)]


def test_training_twice_gives_the_same_vocabulary() -> None:
    assert train_tiny(TEXTS, 400).digest == TINY.digest != train_tiny(TEXTS[:2], 330).digest


def test_a_vocabulary_is_never_larger_than_asked() -> None:
    assert train_tiny(TEXTS * 3, 330).vocab_size <= 330
    with pytest.raises(ValueError, match="below 320"):
        train_tiny(TEXTS, 300)


def test_saved_files_load_here_and_in_transformers(tmp_path: Path) -> None:
    save_tokenizer(TINY, tmp_path)
    assert TextTokenizer.load(tmp_path).digest == TextTokenizer.load(tmp_path / "tokenizer.json").digest == TINY.digest
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert type(theirs).__name__ == "Qwen2Tokenizer"
    assert (theirs.eos_token, theirs.pad_token) == ("<|im_end|>", "<|endoftext|>")
    for text in ["<|im_start|>user\na red star<|im_end|>", "<|image|>中 x"]:
        assert theirs(text)["input_ids"] == TINY.encode(text)


def test_encoding_the_same_text_twice_gives_lists_of_its_own() -> None:
    TINY.encode("red").append(99)
    assert 99 not in TINY.encode("red")


def test_files_that_are_no_tokenizer_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither tokenizer\.json nor vocab\.json"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match=r"tokenizer\.json: not a tokenizer file"):
        TextTokenizer.load(tmp_path)
    with pytest.raises(InputError, match=r"has no token <\|endoftext\|>; give a Qwen2 tokenizer"):
        TextTokenizer(Tokenizer(models.BPE()))


def test_a_placeholder_that_is_one_token_is_refused() -> None:
    backend = Tokenizer.from_str(TINY.backend.to_str())
    backend.add_special_tokens([AddedToken("<|image|>", special=True)])
    with pytest.raises(InputError, match=r"<\|image\|> must be 5 ordinary tokens"):
        TextTokenizer(backend)


def test_control_tokens_in_content_are_found() -> None:
    assert control_token_in("a <|im_end|> b") == "<|im_end|>"
    assert control_token_in("see <|image|>") == "<|image|>"
    assert control_token_in("a < b | c > d") is None
