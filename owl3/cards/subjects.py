"""What a person may ask about: URL, domain, licence, hash, picture file, sample id, step or checkpoint."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from owl3.cards import runs
from owl3.errors import InputError
from owl3.media import MediaError, open_header, perceptual_hash
from owl3.samples import canonical_url
from owl3.storage import sha256_of

logger = logging.getLogger(__name__)

What = Literal["url", "domain", "licence", "sha256", "sample_id", "image", "step", "checkpoint"]

STEP_PATTERN = re.compile(r"([\w.-]+/[\w.-]+):(\d+)")
"""RUN/STAGE:STEP, what that one step held; RUN/STAGE@STEP is the checkpoint after so many steps."""

MAX_PHASH_BITS = 6
"""Perceptual hashes of 64 bits that differ in no more bits show the same picture (re-encoded, scaled)."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What was asked about: `values` are the ways it may stand in a table."""

    what: What
    text: str
    values: tuple[str, ...]


def understand(text: str, what: What | None = None) -> Subject:
    """Say what a person means by `text`; `what` settles it where the guess would be wrong.

    Raises:
        InputError: when it looks like nothing that can be traced.
    """
    if not text.strip():
        raise InputError("nothing to look for: give a URL, domain, licence, sha256, picture, sample id or checkpoint")
    kind = what or _guess(text)
    if kind == "url":
        try:
            return Subject("url", text, (text, canonical_url(text)))
        except ValueError as error:  # a port that is no number, a host name that can't be one
            raise InputError(f"{text!r}: not a URL ({error})") from error
    if kind == "domain":
        return Subject("domain", text, (_host(text),))
    if kind == "image":
        return _picture(text)
    if kind == "sha256" and not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise InputError(f"{text!r}: a sha256 has 64 hexadecimal digits, this has {len(text)} letters")
    if kind in ("sha256", "sample_id"):
        return Subject(kind, text, (text.lower(),))
    if kind in get_args(What):
        return Subject(kind, text, (text,))
    raise InputError(f"{text!r}: choose --as from {', '.join(get_args(What))}")


def _host(text: str) -> str:
    """A domain as the ledger spells it: in ASCII and lower case, without what people write around it."""
    plain = text.strip().lower().removeprefix("*.").rstrip(".")
    try:
        return plain.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise InputError(f"{text!r}: not a domain ({error})") from error


def _picture(text: str) -> Subject:
    """A picture by its bytes and its looks; a clip, or what no decoder takes, by its bytes alone."""
    path = Path(text)
    if not path.is_file():
        raise InputError(f"{path}: no such picture file")
    values = [sha256_of(path)]
    try:
        values.append(perceptual_hash(open_header(path.read_bytes()).convert("L")))
    except (MediaError, OSError, ValueError) as error:
        logger.info("%s: no picture (%s), looked for by its bytes alone", path, error)
    return Subject("image", text, tuple(values))


def _guess(text: str) -> What:
    if "://" in text:
        return "url"
    if re.fullmatch(r"[0-9a-fA-F]{64}", text):
        return "sha256"
    if re.fullmatch(r"[0-9a-fA-F]{32}", text):
        return "sample_id"
    if STEP_PATTERN.fullmatch(text):
        return "step"
    if runs.CHECKPOINT_PATTERN.search(text):
        return "checkpoint"
    if Path(text).is_file():
        return "image"
    if re.fullmatch(r"(?:\*\.)?(?:[\w-]+\.)+[^\W\d_][\w-]+\.?", text):
        return "domain"
    return "licence"
